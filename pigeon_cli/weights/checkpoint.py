"""Safetensors files of single model parts, loaded strictly: each key is used, or named as ignored, or an error."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pigeon_cli.core.errors import OutputError, WeightsError
from pigeon_cli.weights.packed import EIGHT, pack, unpack


def save_part(
    path: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype = torch.bfloat16,
    packed: bool = False,
    exact: Collection[str] = (),
    bits: int = EIGHT,
) -> None:
    """Write floating tensors as ``dtype``, others as they are, through a temporary file beside ``path``.

    ``packed`` writes large matrices in ``bits`` instead (:func:`pigeon_cli.weights.packed.pack`), but those of
    ``exact``. Raises :class:`OutputError`.
    """
    if packed:
        tensors = pack(tensors, dtype, exact, bits)
    else:
        tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(ready, temporary)
        # The file is made readable by its owner alone; installed packages are read by everyone.
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write the weights file {path}: {error}", "free space or choose another folder"
        ) from error


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write contiguous tensors of the main memory, none sharing its memory; raises ``OSError`` for the disk."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        # It tells of a full disk only in words.
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def read_part(path: Path, start: str = "") -> dict[str, Tensor]:
    """The tensors of one weights file whose keys begin with ``start``, packed ones in float32.

    Raises :class:`WeightsError` that names the file, and the key of scales that do not fit what they are of.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"cannot read the weights file {path}: {error}", "reinstall pigeon, or point --model at a complete folder"
        ) from error
    try:
        return unpack({key: tensor for key, tensor in found.items() if key.startswith(start)})
    except ValueError as error:
        raise _mismatch(path, str(error)) from error


def load_part(module: nn.Module, path: Path, ignored: frozenset[str] = frozenset(), start: str = "") -> None:
    """Copy a weights file into ``module`` (any dtype to the module's own); strict as :func:`load_tensors`.

    Only keys that begin with ``start`` count, without it.
    """
    found = {key.removeprefix(start): tensor for key, tensor in read_part(path, start).items()}
    load_tensors(module.state_dict(), found, path, ignored)


def load_tensors(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path, ignored: frozenset[str] = frozenset()
) -> None:
    """Copy ``found`` (read from ``path``) into the tensors ``wanted``.

    Every wanted tensor must be in the file with the same shape, floating if it is floating, and every key of the file
    must be wanted or be in ``ignored``; else :class:`WeightsError` names the file, the key and both shapes or types.
    """
    for name in sorted(set(wanted) | set(found)):
        if name in ignored and name not in wanted:
            continue
        if name not in found:
            raise _mismatch(path, f"lacks the tensor {name} {tuple(wanted[name].shape)}")
        if name not in wanted:
            raise _mismatch(path, f"holds the unknown tensor {name} {tuple(found[name].shape)}")
        if wanted[name].shape != found[name].shape:
            raise _mismatch(
                path, f"holds {name} as {tuple(found[name].shape)}, the model wants {tuple(wanted[name].shape)}"
            )
        # Levels that have lost their scales would pass for weights.
        if wanted[name].is_floating_point() != found[name].is_floating_point():
            raise _mismatch(path, f"holds {name} as {found[name].dtype}, the model wants {wanted[name].dtype}")
    with torch.no_grad():
        for name, target in wanted.items():
            target.copy_(found[name])


def _mismatch(path: Path, what: str) -> WeightsError:
    return WeightsError(f"the weights file {path} {what}", "use the weights and config.json of one and the same model")


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
