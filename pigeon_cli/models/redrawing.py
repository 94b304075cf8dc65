"""Another hand's drawing where, as large as, and in the colours in which a hand that never drew the thing should have
drawn it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pigeon_cli.models.small_pictures import as_image, as_pixels

PALETTE: Final = 8
"""How many colours of a drawing are exchanged."""
BOX_SCALE: Final = 255.0
PAPER: Final = 240
"""Colours whose darkest channel, of 255, is above this are paper."""
DARKER: Final = 12
"""How much darker than white, of 255, a channel is where something is drawn."""
FINER: Final = 2
"""Times the size at which it is drawn, so that its edges are smooth."""
SPREAD: Final = 50.0
"""Square of a distance of colours, of 255, over which one gives way to another."""
SHADING: Final = 0.5
"""How much is left of what differs from the colours that are exchanged."""
AROUND: Final = 7
"""Pixels across, FINER ones, of what outvotes specks on a rough picture, and the haze around what is drawn."""


@dataclass(frozen=True)
class Redrawing:
    """What becomes of a drawing."""

    box: tuple[float, float, float, float]
    """Top, bottom, left and right of what is drawn, as shares of the side."""
    was: Tensor
    """uint8 [PALETTE, 3]: its colours."""
    becomes: Tensor
    """uint8 [PALETTE, 3]: what they turn into."""


def drawn_box(picture: Image.Image) -> tuple[int, int, int, int]:
    """Top, bottom, left and right, in pixels, of what is drawn on a plain RGB picture on white; all of a blank one."""
    drawn = (1 - as_pixels(picture)).amax(0) > DARKER / 255
    rows, columns = drawn.any(1).nonzero()[:, 0].tolist(), drawn.any(0).nonzero()[:, 0].tolist()
    return (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else (0, picture.height, 0, picture.width)


def settled(rough: Image.Image, redrawing: Redrawing) -> Image.Image:
    """A rough RGB picture on white of a drawing that is to be redrawn, in the colours that the drawing has: at every
    place that to which most pixels around it are nearest; FINER times the size."""
    finer = rough.resize((rough.width * FINER, rough.height * FINER), Image.Resampling.BICUBIC)
    colours = _with_paper(redrawing.was)
    nearest = _apart(_rows(as_pixels(finer)), colours).argmin(1).view(1, finer.height, finer.width)
    votes = functional.one_hot(nearest, len(colours)).permute(0, 3, 1, 2).float()
    chosen = functional.avg_pool2d(votes, AROUND, 1, AROUND // 2)[0].argmax(0)
    return as_image(colours[chosen].permute(2, 0, 1) / 255)


def redrawn(picture: Image.Image, redrawing: Redrawing) -> Image.Image:
    """A plain RGB picture on white, as it should have been drawn: the same size."""
    top, bottom, left, right = drawn_box(picture)
    high, low, first, last = (round(share * side) for share, side in zip(
        redrawing.box, (picture.height, picture.height, picture.width, picture.width), strict=True
    ))  # fmt: skip
    size = (max(1, last - first) * FINER, max(1, low - high) * FINER)
    part = picture.crop((left, top, right, bottom)).resize(size, Image.Resampling.BICUBIC)
    sheet = Image.new("RGB", (picture.width * FINER, picture.height * FINER), "white")
    sheet.paste(as_image(_exchanged(as_pixels(part), redrawing)), (first * FINER, high * FINER))
    return sheet.resize(picture.size, Image.Resampling.BOX)


def _exchanged(pixels: Tensor, redrawing: Redrawing) -> Tensor:
    """Of pixels [3, H, W] in 0..1 each in the colour that its own, or those between which it lies, turn into."""
    was, becomes = (_with_paper(each) for each in (redrawing.was, redrawing.becomes))
    rows = _rows(pixels)
    shares = torch.softmax(-_apart(rows, was) / SPREAD, dim=1)
    changed = shares @ becomes + SHADING * (rows - shares @ was)
    return (changed.T.view_as(pixels) / 255).clamp(0, 1)


def _with_paper(colours: Tensor) -> Tensor:
    """uint8 [n, 3] as float32 [n + 1, 3], white behind them."""
    return torch.cat([colours.cpu().float(), torch.full((1, 3), 255.0)])


def _rows(pixels: Tensor) -> Tensor:
    """Pixels [3, H, W] in 0..1 as colours [H W, 3] of 0..255."""
    return pixels.flatten(1).T * 255


def _apart(rows: Tensor, colours: Tensor) -> Tensor:
    """Squares of distances [N, n] of colours [N, 3] from others [n, 3]."""
    return torch.cdist(rows, colours, compute_mode="donot_use_mm_for_euclid_dist").square()
