"""Bytes of a model's parts in any precision, from the headers of its files alone (issue 4 section 4)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.engine.plan import Precision
from pigeon_cli.engine.schedule import Part
from pigeon_cli.weights.scales import scale_of, unpacked_shape
from pigeon_cli.weights.stored_model import StoredModel

MADE_OF: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "aligned language": (("language", ""), ("lora", "")),
    "embedding": (("language", "model.embed_tokens."),),
    "quantizer": (("tokenizer", "quantizer."),),
}
"""Parts that are not one part of a stored model: which of those they take, and the start of the keys they need."""

QUANTIZED: Final = frozenset({"language", "aligned language"})
"""Parts that int8 and nf4 are for: where the language model fits, so does any other part in bfloat16."""

_SCALE_BYTES: Final = 4
_NF4_BLOCK: Final = 64
"""So many weights of half a byte share a scale in float32."""


@dataclass(frozen=True)
class Stored:
    """What one file holds of a part; numbers of linear weights apart, since only those are quantized."""

    bytes: int = 0
    kinds: frozenset[str] = frozenset()
    """Types of its floating tensors, as safetensors names them; ``I8`` of packed ones, which are of no precision's."""
    plain: int = 0
    """Floating numbers outside the weights of linear layers."""
    linear: int = 0
    scales: int = 0
    """Output rows of linear weights, which have one scale each."""
    other: int = 0
    """Bytes of tensors that are not floating and stay as they are."""
    largest: int = 0
    """Bytes of the largest tensor."""
    unpacked: int = 0
    """Bytes in float32 of what is packed in the file (:mod:`pigeon_cli.weights.packed`)."""

    def __add__(self, more: Stored) -> Stored:
        return Stored(
            self.bytes + more.bytes,
            self.kinds | more.kinds,
            self.plain + more.plain,
            self.linear + more.linear,
            self.scales + more.scales,
            self.other + more.other,
            max(self.largest, more.largest),
            self.unpacked + more.unpacked,
        )

    def size(self, precision: Precision) -> int:
        """Bytes in memory."""
        linear = self.linear * precision.width
        if precision is Precision.INT8:
            linear = self.linear + self.scales * _SCALE_BYTES
        elif precision is Precision.NF4:
            linear = self.linear // 2 + self.linear // _NF4_BLOCK * _SCALE_BYTES
        return linear + self.plain * precision.width + self.other

    def passing(self, precision: Precision, mapped: bool) -> int:
        """Bytes of the file that are in memory besides while the weights are made: all of it where it is read as a
        whole, with what was packed in it a second time, unpacked; its largest tensor where it is ``mapped``, as packed
        files never are; none where the file's own bytes are the weights."""
        own = {Precision.FLOAT32: {"F32"}, Precision.BFLOAT16: {"BF16"}}
        if self.kinds <= own.get(precision, set()):
            return 0
        return self.largest if mapped else self.bytes + self.unpacked


def stored(model: StoredModel, name: str) -> list[Stored]:
    """The files of one part, by their headers; raises :class:`WeightsError` for a file that cannot be read.

    A pickle has no header: all of it is counted, as numbers of two bytes that cannot be quantized, which the published
    ones are. ``pigeon download`` leaves none.
    """
    return [
        _pickle(file.path) if file.path.suffix == ".bin" else _read(file.path, file.place, start)
        for part, start in MADE_OF.get(name, ((name, ""),))
        for file in model.tensor_files(part)
    ]


def part_size(model: StoredModel, name: str, precision: Precision) -> Part:
    """The bytes of one part; a loader that converts does so file by file. Raises as :func:`stored`."""
    if precision in (Precision.INT8, Precision.NF4) and name not in QUANTIZED:
        precision = Precision.BFLOAT16
    files = stored(model, name)
    passing = max(file.passing(precision, model.mapped) for file in files)
    return Part(name, sum(file.size(precision) for file in files), passing)


def _pickle(path: Path) -> Stored:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    return Stored(size, frozenset({"pickle"}), size // 2, largest=size)


def _read(path: Path, place: Callable[[str], str | None], start: str) -> Stored:
    """The tensors whose name of ours begins with ``start``."""
    try:
        with safe_open(path, framework="np") as file:
            slices = [(place(key), file.get_slice(key)) for key in file.keys()]  # noqa: SIM118
            tensors = [(key, part.get_dtype(), part.get_shape()) for key, part in slices if key is not None]
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    names = {key for key, _, _ in tensors}
    packed = {key for key, kind, _ in tensors if kind in ("I8", "U8") and scale_of(key) in names}
    scales = {scale_of(key) for key in packed}
    found = Stored()
    for key, kind, shape in tensors:
        if key.startswith(start):
            size = math.prod(shape) * _width(kind)
            # Scales are gone when the file is read.
            found += Stored(size, largest=size) if key in scales else _tensor(key, kind, shape, size, key in packed)
    return found


def _tensor(key: str, kind: str, shape: Sequence[int], size: int, packed: bool) -> Stored:
    """A tensor of ``size`` bytes in the file."""
    if not (packed or kind.startswith(("F", "BF"))):
        return Stored(size, other=size, largest=size)
    if packed:
        shape = unpacked_shape(kind, shape)
    count = math.prod(shape)
    unpacked = count * Precision.FLOAT32.width if packed else 0
    if is_linear(key, shape):
        return Stored(size, frozenset({kind}), linear=count, scales=shape[0], largest=size, unpacked=unpacked)
    return Stored(size, frozenset({kind}), plain=count, largest=size, unpacked=unpacked)


def is_linear(key: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is the weight of a linear layer, and no table of embeddings, which has the same form."""
    module, _, kind = key.rpartition(".")
    return kind == "weight" and len(shape) == 2 and "embed" not in module.rpartition(".")[2]


def _width(kind: str) -> int:
    """Bytes of one number of a type of safetensors: ``BF16``, ``F8_E4M3``, ``I64``, ``BOOL``."""
    digits = re.search(r"\d+", kind)
    return int(digits[0]) // 8 if digits else 1


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"cannot read the weights file {path}: {error}", "download the model again, or reinstall pigeon"
    )
