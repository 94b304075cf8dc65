"""A picture under its mask, patch by patch: what became no token, what was kept, what was dropped, the scores as heat.

States differ in shape (plain, cross, dot) and scores in lightness, so that nothing hangs on telling colours apart.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

from pigeon_cli.core.records import TokenMask

VIRIDIS: Final = (
    (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142),
    (31, 158, 137), (53, 183, 121), (109, 205, 89), (180, 222, 44), (253, 231, 37),
)  # fmt: skip
"""Ten colours at equal steps, dark to light, that stay in order for every kind of colour vision."""
SMALLEST_SIDE, LARGEST_SIDE = 256, 512
"""Pixels of an overlay's shorter side."""
SMALLEST_PATCH: Final = 24
"""Pixels; a cross within less cannot be seen."""
LONGEST: Final = 3
"""The longer side in shorter ones; longer pictures are squeezed, as the tokenizer squeezes all to a square."""
HEAT_SHARE, FADED_SHARE = 0.68, 0.82
DARKEST, CONTRAST = 30, 0.8
"""Greys of the picture under the heat: at full contrast dark and light places would pass for low and high scores."""
PLAIN: Final = (205, 205, 205)
"""Where there is no picture: a reference imagined from words."""
EDGE, DOT = (90, 90, 90), (150, 150, 150)

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Heat:
    """The range of scores that the colours span."""

    low: float
    high: float

    def colour(self, score: float) -> tuple[int, int, int]:
        """Red, green, blue; the middle where all scores are one, grey for a score that is no number."""
        if not math.isfinite(score):
            return EDGE
        span = self.high - self.low
        return viridis((score - self.low) / span if span > 0 else 0.5)


def viridis(place: float) -> tuple[int, int, int]:
    """Colour at ``place`` from 0 (dark) to 1 (light)."""
    at = min(max(place, 0.0), 1.0) * (len(VIRIDIS) - 1)
    start = min(int(at), len(VIRIDIS) - 2)
    red, green, blue = (
        round(low + (high - low) * (at - start)) for low, high in zip(VIRIDIS[start], VIRIDIS[start + 1], strict=True)
    )
    return red, green, blue


def heat_of(masks: Sequence[TokenMask]) -> Heat | None:
    """The range of all scores of ``masks`` together; ``None`` where nothing was scored."""
    scores = [score for mask in masks for score in mask.scores if math.isfinite(score)]
    return Heat(min(scores), max(scores)) if scores else None


def smallest_side(grid: int) -> int:
    """Pixels of the side of a small square picture's overlay; a multiple of ``grid``."""
    return _whole_patches(max(SMALLEST_SIDE, SMALLEST_PATCH * grid), grid)


def overlay_size(size: tuple[int, int], grid: int) -> tuple[int, int]:
    """Width and height of the overlay of a picture of ``size``: about its shape, whole pixels to every patch."""
    small = smallest_side(grid)
    short = min(max(min(size), small), max(LARGEST_SIDE, small))
    scale = short / min(size)
    width, height = (_whole_patches(min(round(side * scale), LONGEST * short), grid) for side in size)
    return width, height


def draw_overlay(picture: Image.Image | None, mask: TokenMask, grid: int, heat: Heat | None) -> Image.Image:
    """RGB overlay of ``mask`` on an RGB ``picture`` of ``grid`` x ``grid`` patches; ``None`` draws on plain grey.

    A kept token wears its heat (its own colours where ``heat`` is ``None``), a dropped one a cross as well; a patch
    that is no token is faded and has a dot. Tokens without patches, drawn instead of read, fill the grid row by row.
    """
    size = overlay_size(picture.size if picture else (1, 1), grid)
    shown = picture.resize(size, Image.Resampling.LANCZOS) if picture else Image.new("RGB", size, PLAIN)
    overlay = Image.blend(shown, Image.new("RGB", size, "white"), FADED_SHARE)
    draw = ImageDraw.Draw(overlay)
    patches, dropped = mask.patches or tuple(range(len(mask.codes))), frozenset(mask.dropped)
    token_at = {patch: token for token, patch in enumerate(patches)}
    for patch in range(grid * grid):
        box = _box(patch, size, grid)
        token = token_at.get(patch)
        if token is None:
            _dot(draw, box)
            continue
        colour = heat.colour(mask.scores[token]) if heat and mask.scores else None
        _token(overlay, draw, shown, box, colour)
        if token in dropped:
            _cross(draw, box)
    return overlay


def png_bytes(image: Image.Image) -> bytes:
    """PNG without metadata; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _whole_patches(side: int, grid: int) -> int:
    return -(-side // grid) * grid


def _box(patch: int, size: tuple[int, int], grid: int) -> Box:
    width, height = size[0] // grid, size[1] // grid
    left, top = patch % grid * width, patch // grid * height
    return left, top, left + width, top + height


def _token(
    overlay: Image.Image,
    draw: ImageDraw.ImageDraw,
    shown: Image.Image,
    box: Box,
    colour: tuple[int, int, int] | None,
) -> None:
    part = shown.crop(box)
    if colour:
        grey = part.convert("L").point([round(DARKEST + CONTRAST * level) for level in range(256)])
        part = Image.blend(grey.convert("RGB"), Image.new("RGB", part.size, colour), HEAT_SHARE)
    overlay.paste(part, box)
    left, top, right, bottom = box
    draw.rectangle((left, top, right - 1, bottom - 1), outline="white" if colour else EDGE)


def _cross(draw: ImageDraw.ImageDraw, box: Box) -> None:
    left, top, right, bottom = box
    side = min(right - left, bottom - top)
    arm, line = round(side * 0.28), max(2, side // 16)
    x, y = (left + right - 1) // 2, (top + bottom - 1) // 2
    # White on a black edge is seen on any heat.
    for colour, width, reach in (("black", line + 2, arm + 1), ("white", line, arm)):
        draw.line((x - reach, y - reach, x + reach, y + reach), fill=colour, width=width)
        draw.line((x - reach, y + reach, x + reach, y - reach), fill=colour, width=width)


def _dot(draw: ImageDraw.ImageDraw, box: Box) -> None:
    left, top, right, bottom = box
    radius = max(1, min(right - left, bottom - top) // 16)
    x, y = (left + right - 1) // 2, (top + bottom - 1) // 2
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=DOT)
