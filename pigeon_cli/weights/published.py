"""Published weights files: finding them, mapping their tensors, and giving these to a module, strictly."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.keymaps import Ignored, KeyMap

ENDINGS = (".safetensors", ".bin")
"""The first that is there whole is read: a converted file stands for its pickle."""

_AGAIN = "download the model again, or point at a complete folder"
_OTHER = "use the files of one and the same published model"


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold one published set of tensors: a single one, or shards."""

    name: Path
    """The single file, the index, or the folder of shards without an index: what errors name where no shard is."""
    shards: tuple[Path, ...]
    index: Mapping[str, Path] = field(default_factory=dict)
    """Which shard should hold which key; empty without an index."""

    @property
    def missing(self) -> tuple[Path, ...]:
        return tuple(path for path in self.shards if not path.is_file())

    def tensors(self) -> dict[str, tuple[Path, Tensor]]:
        """Every key with its file and its mapped tensor; raises :class:`WeightsError` for a key in two shards."""
        found: dict[str, tuple[Path, Tensor]] = {}
        for path in self.shards:
            for key, tensor in read_tensors(path).items():
                if key in found:
                    raise WeightsError(f"both {found[key][0]} and {path} hold the tensor {key}", _OTHER)
                found[key] = (path, tensor)
        return found


@dataclass(frozen=True)
class Source:
    """One published set of tensors and where they go."""

    keymap: KeyMap
    files: WeightFiles


def find_files(folder: Path, stems: Sequence[str]) -> WeightFiles:
    """The first complete set under any of the paths without ending ``stems``; else the set that comes nearest.

    Without a single file of any, it is the pickle of the last stem, whose absence the caller can then name.
    """
    sets = [_one_set(folder / f"{stem}{ending}") for ending in ENDINGS for stem in stems]
    begun = [entry for entry in sets if entry is not None]
    whole = [entry for entry in begun if not entry.missing]
    expected = folder / f"{stems[-1]}{ENDINGS[-1]}"
    return (whole or begun or [WeightFiles(expected, (expected,))])[0]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file, mapped: bytes are read when they are used. Writing to them does not change the file.

    A pickle is read by torch's restricted reader, which runs nothing. Raises :class:`WeightsError`.
    """
    try:
        found = load_file(path) if path.suffix == ENDINGS[0] else _read_pickle(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"the weights file {path} was refused: it is damaged, or holds more than plain tensors, which was not run",
            "delete it and " + _AGAIN,
        ) from error
    except Exception as error:
        # Damaged files make the readers raise whatever the damaged byte leads to, from KeyError to UnicodeDecodeError.
        raise WeightsError(f"cannot read the weights file {path}: {error}", _AGAIN) from error
    if not isinstance(found, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    ):
        raise WeightsError(f"the weights file {path} is no plain table of names and tensors", _AGAIN)
    return dict(found)


def assign(module: nn.Module, sources: Sequence[Source]) -> None:
    """Put the mapped tensors of ``sources`` in the place of the parameters of ``module``, strictly as :func:`match`.

    Build ``module`` under ``accelerate.init_empty_weights(include_buffers=False)``: buffers that no file holds (the
    rotary frequencies of LLaMA) must have their values. The tensors keep the type that they have in the file.
    """
    module.load_state_dict(match(module.state_dict(), sources), strict=True, assign=True)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_meta:
            raise ValueError(f"{name} is in no file and was built without a value")


def match(wanted: Mapping[str, Tensor], sources: Sequence[Source]) -> dict[str, Tensor]:
    """The mapped tensors of ``sources`` by the names of ``wanted``, whose values do not matter.

    Each published key must be ignored with a reason or wanted, in the same shape, and each wanted tensor must be there
    once; else :class:`WeightsError` names the file, the published key and both shapes, and counts the others.
    """
    found: dict[str, Tensor] = {}
    problems: list[str] = []
    for source in sources:
        for published, (path, tensor) in source.files.tensors().items():
            place = source.keymap.place(published)
            if isinstance(place, Ignored):
                continue
            if place is None or place.key not in wanted:
                problems.append(f"{path} holds the unknown tensor {published} {_shape(tensor)}; the model wants none")
                continue
            if problem := _unlike(tensor, wanted[place.key]):
                problems.append(f"{path} holds the tensor {published} as {problem}")
            if place.key in found:
                problems.append(f"{path} holds the tensor {published} {_shape(tensor)} under two names")
            found[place.key] = tensor
    problems.extend(_lacking(key, wanted[key], sources) for key in wanted.keys() - found.keys())
    if problems:
        more = f" ({len(problems) - 1} more tensors do not fit)" if len(problems) > 1 else ""
        raise WeightsError(f"the weights file {min(problems)}{more}", _OTHER)
    return found


def read_json(path: Path) -> dict[str, object]:
    """One JSON object; raises :class:`WeightsError` that names the file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}", _AGAIN) from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path} is no JSON object", _AGAIN)
    return data


def _one_set(path: Path) -> WeightFiles | None:
    """The set that ``path`` stands for, if anything of it is there: itself, an index beside it, or numbered shards."""
    if path.is_file():
        return WeightFiles(path, (path,))
    index = path.with_name(f"{path.name}.index.json")
    if index.is_file():
        return _indexed(index)
    return _numbered(path)


def _indexed(index: Path) -> WeightFiles:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(map(_plain_name, table.values())):
        raise WeightsError(f"{index} has no weight_map of keys to files beside it", _AGAIN)
    owners = {key: index.parent / name for key, name in table.items()}
    return WeightFiles(index, tuple(sorted(set(owners.values()))), owners)


def _plain_name(name: object) -> bool:
    """Whether an index names a file of its own folder; anything else could lead out of the model."""
    return isinstance(name, str) and Path(name).name == name


def _numbered(path: Path) -> WeightFiles | None:
    pattern = re.compile(rf"{re.escape(path.stem)}-(\d+)-of-(\d+){re.escape(path.suffix)}")
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    for name in sorted(names):
        if found := pattern.fullmatch(name):
            number, count = found.groups()
            shards = (
                path.with_name(f"{path.stem}-{shard:0{len(number)}}-of-{count}{path.suffix}")
                for shard in range(1, int(count) + 1)
            )
            return WeightFiles(path.parent, tuple(shards))
    return None


def _read_pickle(path: Path) -> object:
    # Only the zip form, which torch has written since 1.6, can be mapped.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _unlike(found: Tensor, wanted: Tensor) -> str | None:
    if found.shape != wanted.shape:
        return f"{_shape(found)}; the model wants {_shape(wanted)}"
    if found.is_floating_point() != wanted.is_floating_point():
        return f"{_shape(found)} of {found.dtype}; the model wants {_shape(wanted)} of {wanted.dtype}"
    return None


def _lacking(key: str, wanted: Tensor, sources: Sequence[Source]) -> str:
    """What to say about a tensor of ours that no file holds: by its published name, and the file it belongs to."""
    for source in sources:
        if (published := source.keymap.published(key)) is not None:
            path = source.files.index.get(published, source.files.name)
            return f"{path} lacks the tensor {published}; the model wants {_shape(wanted)}"
    raise ValueError(f"no published file holds {key}")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
