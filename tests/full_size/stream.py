"""Safetensors files written tensor by tensor; the library's own writer wants all tensors of a file in memory."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from pigeon_cli.models.mask_generator import SinusoidTable
from pigeon_cli.weights.disk import temporary_beside, writing

Shape = tuple[int, ...]
DEVIATION = 0.02
"""Of the random weights; small enough that activations stay finite through forty layers."""
PIECE = 2**24
"""Numbers that are in memory at a time."""
_CODES = {torch.bfloat16: "BF16", torch.float32: "F32"}


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that is to be made: path below the model folder, and what stands in it."""

    path: str
    shapes: Mapping[str, Shape]
    dtype: torch.dtype = torch.bfloat16
    deviations: Mapping[str, float] = field(default_factory=dict)
    """Of the tensors that differ from :data:`DEVIATION`."""
    centred: frozenset[str] = frozenset()
    """Matrices whose rows have a mean of zero; smaller than a piece."""

    @property
    def bytes(self) -> int:
        """Without the header."""
        return sum(map(prod, self.shapes.values())) * self.dtype.itemsize


def write_random(folder: Path, file: WeightsFile, seed: int) -> int:
    """Write ``file`` below ``folder`` and return its bytes; raises :class:`OutputError`.

    Every tensor has a random stream of its own, made of ``seed``, the path and the key.
    """
    target = folder / file.path
    temporary = temporary_beside(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                stream.write(_header(file))
                for key in file.shapes:
                    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{file.path}/{key}".encode()))
                    for piece in _values(file, key, generator):
                        stream.write(piece.to(file.dtype).view(torch.uint8).numpy())
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return target.stat().st_size


def _header(file: WeightsFile) -> bytes:
    """Length and JSON table, filled up with spaces so that the numbers begin at a multiple of eight."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, shape in file.shapes.items():
        start, end = end, end + prod(shape) * file.dtype.itemsize
        table[key] = {"dtype": _CODES[file.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def settled_values(key: str, shape: Shape) -> Tensor | None:
    """The values of a tensor that is not random: norms 1, biases 0, the sinusoid table itself."""
    if key.endswith("position_embedding.pe"):
        return SinusoidTable(*shape).pe
    return torch.full(shape, 1.0 if key.endswith("weight") else 0.0) if len(shape) == 1 else None


def _values(file: WeightsFile, key: str, generator: torch.Generator) -> Iterator[Tensor]:
    """The numbers of one tensor, flat, in pieces."""
    shape, deviation = file.shapes[key], file.deviations.get(key, DEVIATION)
    settled = settled_values(key, shape)
    if settled is not None:
        yield settled.flatten()
    elif key in file.centred:
        matrix = torch.empty(shape).normal_(0, deviation, generator=generator)
        yield (matrix - matrix.mean(1, keepdim=True)).flatten()
    else:
        for start in range(0, prod(shape), PIECE):
            yield torch.empty(min(PIECE, prod(shape) - start)).normal_(0, deviation, generator=generator)
