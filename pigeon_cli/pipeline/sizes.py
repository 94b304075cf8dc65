"""Sizes that a model sets: the history that it reads, the picture that it draws (DESIGN.md section 2)."""

from __future__ import annotations

from math import isqrt
from typing import Final

from pigeon_cli.core.configs import DiffusionConfig, ModelSpec
from pigeon_cli.core.errors import UsageError

ASPECTS: Final = {
    "1:1": (1024, 1024),
    "4:3": (896, 1152),
    "3:2": (832, 1216),
    "16:9": (768, 1344),
    "2:3": (1216, 832),
    "3:4": (1152, 896),
}
"""Height and width in pixels, of a model that draws squares of 1024."""
DEFAULTS: Final = {"poster": "2:3"}
"""By wording; all others draw squares."""
STEP: Final = 8
"""What ``--size`` is a multiple of: the side of the VAE's cells."""
_SQUARE: Final = isqrt(ASPECTS["1:1"][0] * ASPECTS["1:1"][1])


def check_history_size(spec: ModelSpec, size: int) -> None:
    """Raises :class:`UsageError` for a history of more than the images that the model was made for."""
    if size > spec.history_size:
        raise UsageError(
            f"the model {spec.name} reads {spec.history_size} history images, not {size}",
            f"use --history-size {spec.history_size} or less",
        )


def drawing_size(config: DiffusionConfig, wording: str, aspect: str | None, size: int | None) -> tuple[int, int]:
    """Height and width in pixels of ``aspect`` with the long side ``size``; ``None`` stands for the model's own.

    Raises :class:`UsageError` for a size that is no multiple of 8, and for anything but its own size of a model that
    reads its pictures' layout off a grid, and so knows one size only.
    """
    side = config.image_size
    if config.grid_channels:
        if size not in (None, side) or aspect not in (None, "1:1"):
            raise UsageError(f"this model draws {side} x {side} pixels only", "leave out --size and --aspect")
        return side, side
    if size is not None and size % STEP:
        nearest = max(STEP, round(size / STEP) * STEP)
        raise UsageError(f"--size {size} is no multiple of {STEP}", f"try --size {nearest}")
    height, width = ASPECTS[aspect or DEFAULTS.get(wording, "1:1")]
    scale = side / _SQUARE if size is None else size / max(height, width)
    cell = 2 ** (len(config.vae["block_out_channels"]) - 1)
    return _whole(height * scale, cell), _whole(width * scale, cell)


def _whole(length: float, cell: int) -> int:
    return max(1, round(length / cell)) * cell
