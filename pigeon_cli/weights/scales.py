"""What the scales of packed tensors are called (:mod:`pigeon_cli.weights.packed`), for those who only read headers."""

from __future__ import annotations

from typing import Final

SCALE_ENDING: Final = ".scale"


def scale_of(name: str) -> str:
    """The key of the scales of the tensor ``name``."""
    return name + SCALE_ENDING
