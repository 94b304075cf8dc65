"""What the scales of packed tensors are called (:mod:`pigeon_cli.weights.packed`), for those who only read headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SCALE_ENDING: Final = ".scale"
QUARTET, BYTES = 4, 3
"""Rows of six bits that share bytes, and how many rows of bytes they take."""


def scale_of(name: str) -> str:
    """The key of the scales of the tensor ``name``."""
    return name + SCALE_ENDING


def unpacked_shape(kind: str, shape: Sequence[int]) -> list[int]:
    """The shape of the numbers in a packed tensor of ``shape``, whose type a file calls ``kind``: ``I8`` or ``U8``."""
    rows, *others = shape
    return [rows if kind == "I8" else rows * QUARTET // BYTES, *others]
