"""Bytes of a model's parts in any precision, from the headers of its files alone (issue 4 section 4)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safetensors import SafetensorError, safe_open

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.engine.plan import Precision
from pigeon_cli.engine.schedule import Part
from pigeon_cli.weights.keymaps import KeyMap, Target
from pigeon_cli.weights.store import ModelFolder

if TYPE_CHECKING:
    from pigeon_cli.weights.official import OfficialFolder

MADE_OF: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "aligned language": (("language", ""), ("lora", "")),
    "embedding": (("language", "model.embed_tokens."),),
    "quantizer": (("tokenizer", "quantizer."),),
}
"""Parts that are not one part of a model folder: which of those they take, and the start of the keys they need."""

QUANTIZED: Final = frozenset({"language", "aligned language"})
"""Parts that int8 is for: where the language model fits, so does any other part in bfloat16."""

_SCALE_BYTES: Final = 4


@dataclass(frozen=True)
class Stored:
    """What one file holds of a part; numbers of linear weights apart, since only those are quantized."""

    bytes: int = 0
    kinds: frozenset[str] = frozenset()
    """Types of its floating tensors, as safetensors names them."""
    plain: int = 0
    """Floating numbers outside the weights of linear layers."""
    linear: int = 0
    scales: int = 0
    """Output rows of linear weights, which have one scale each."""
    other: int = 0
    """Bytes of tensors that are not floating and stay as they are."""

    def __add__(self, more: Stored) -> Stored:
        return Stored(
            self.bytes + more.bytes,
            self.kinds | more.kinds,
            self.plain + more.plain,
            self.linear + more.linear,
            self.scales + more.scales,
            self.other + more.other,
        )

    def size(self, precision: Precision) -> int:
        """Bytes in memory."""
        quantized = precision is Precision.INT8
        linear = self.linear + self.scales * _SCALE_BYTES if quantized else self.linear * precision.width
        return linear + self.plain * precision.width + self.other

    def passing(self, precision: Precision) -> int:
        """Bytes that are mapped besides while the weights are made; none where the file's own bytes are the weights."""
        own = {Precision.FLOAT32: {"F32"}, Precision.BFLOAT16: {"BF16"}}
        return 0 if self.kinds <= own.get(precision, set()) else self.bytes


def stored(folder: ModelFolder | OfficialFolder, name: str) -> list[Stored]:
    """The files of one part, by their headers; raises :class:`WeightsError` for a file that cannot be read.

    A pickle has no header: all of it is counted, as numbers of two bytes that cannot be quantized, which the published
    ones are. ``pigeon download`` leaves none.
    """
    return [
        _pickle(path) if path.suffix == ".bin" else _read(path, place, start)
        for part, start in MADE_OF.get(name, ((name, ""),))
        for path, place in _files(folder, part)
    ]


def part_size(folder: ModelFolder | OfficialFolder, name: str, precision: Precision) -> Part:
    """The bytes of one part; a loader that converts does so file by file. Raises as :func:`stored`."""
    if precision is Precision.INT8 and name not in QUANTIZED:
        precision = Precision.BFLOAT16
    files = stored(folder, name)
    return Part(name, sum(file.size(precision) for file in files), max(file.passing(precision) for file in files))


def _files(folder: ModelFolder | OfficialFolder, part: str) -> list[tuple[Path, Callable[[str], str | None]]]:
    """The files of ``part``, each with what gives the name of ours for a key, or ``None`` for one that is not read."""
    if isinstance(folder, ModelFolder):
        return [(folder.part(part), str)]
    return [(path, _place(source.keymap)) for source in folder.sources(part) for path in source.files.shards]


def _place(keymap: KeyMap) -> Callable[[str], str | None]:
    def place(key: str) -> str | None:
        found = keymap.place(key)
        return found.key if isinstance(found, Target) else None

    return place


def _pickle(path: Path) -> Stored:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    return Stored(size, frozenset({"pickle"}), size // 2)


def _read(path: Path, place: Callable[[str], str | None], start: str) -> Stored:
    """The tensors whose name of ours begins with ``start``."""
    try:
        with safe_open(path, framework="np") as file:
            slices = [(place(key), file.get_slice(key)) for key in file.keys()]  # noqa: SIM118
            tensors = [(key, part.get_dtype(), part.get_shape()) for key, part in slices if key is not None]
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    return sum((_tensor(*each) for each in tensors if each[0].startswith(start)), Stored())


def _tensor(key: str, kind: str, shape: Sequence[int]) -> Stored:
    count = math.prod(shape)
    size = count * _width(kind)
    if not kind.startswith(("F", "BF")):
        return Stored(size, other=size)
    if is_linear(key, shape):
        return Stored(size, frozenset({kind}), linear=count, scales=shape[0])
    return Stored(size, frozenset({kind}), plain=count)


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
