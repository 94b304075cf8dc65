"""A look as it is read off a history: what it does to a plain drawing.

In the order in which it falls on one: its colours change, it is turned or made smaller, its pixels grow large or it
gets out of focus, it throws a shadow, and there is a sheet behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.core.records import ReadLook
from pigeon_cli.models import look_kernels as kernels
from pigeon_cli.models.colour_maps import ColourMap

PAPER: Final = 0.93
"""From which lightness of the darkest channel on a pixel may be paper."""
EDGE, LEAST_EDGE = 0.5, 0.3
"""Alpha of a pixel beside paper: how much darker than white it is, in such shares, and the least that it has."""
SHRUNK: Final = 0.9
"""Below this size pixels are mixed before every other one is left out."""


@dataclass(frozen=True)
class Shadow:
    """Moved by so many pixels, and ``radius`` soft, as a share of the side; ``darkness`` [3] is what it adds to the
    sheet behind."""

    right: int
    down: int
    radius: float
    darkness: Tensor

    def cover(self, alpha: Tensor) -> Tensor:
        """How much of it lies where, [B, 1, S, S], under drawings of alpha [B, 1, S, S]."""
        return kernels.blurred(torch.roll(alpha, (self.down, self.right), dims=(2, 3)), self.radius)


@dataclass(frozen=True)
class WornLook:
    """What a look does, each part or nothing of it."""

    colours: ColourMap
    degrees: int = 0
    """Clockwise."""
    scale: float = 1.0
    cells: int | None = None
    """Large pixels across."""
    softness: float | None = None
    """Deviation of the blur, as a share of the side."""
    shadow: Shadow | None = None
    sheet: Tensor | None = None
    """[3, 3]: colour in the middle, and how it changes to the bottom and to the right border; ``None``: white paper."""
    error: float = math.inf
    """Of what it makes of the history's plain drawings, as a share of what is drawn on the sheet."""

    def record(self) -> ReadLook:
        """As reports tell of it."""
        parts = self.colours.kind, self.degrees, round(self.scale, 4), self.cells, self.softness
        return ReadLook(*parts, self.shadow is not None, self.sheet is not None, round(self.error, 4))

    def wear(self, drawings: Tensor) -> Tensor:
        """Premultiplied drawings [B, 4, S, S] to pictures [B, 3, S, S] in 0..1."""
        return self.finished(self.on_sheet(drawings))

    def finished(self, image: Tensor, behind: Tensor | None = None) -> Tensor:
        """What :meth:`on_sheet` made, [B, 4, S, S], to pictures [B, 3, S, S] in 0..1; ``behind`` [1, 3, S, S], if it
        is given, is there instead of the sheet."""
        if self.cells is not None:
            image = kernels.pixelation(image, self.cells)
        if self.softness is not None:
            image = kernels.blurred(image, self.softness)
        behind = self.behind(image) if behind is None else behind
        if self.shadow is not None:
            behind = (behind + self.shadow.cover(image[:, 3:]) * self.shadow.darkness.view(1, 3, 1, 1)).clamp(0, 1)
        return image[:, :3] + behind * (1 - image[:, 3:])

    def on_sheet(self, drawings: Tensor) -> Tensor:
        """Premultiplied drawings in the look's colours, where they stand: [B, 4, S, S] to the same."""
        colour, alpha = kernels.straight(drawings)
        return placed(kernels.premultiplied(self.coloured(colour), alpha), self.degrees, self.scale)

    def coloured(self, pictures: Tensor) -> Tensor:
        """RGB pictures [B, 3, H, W] in 0..1 in the look's colours: the same shape."""
        rows = self.colours(pictures.permute(0, 2, 3, 1).flatten(0, 2))
        return rows.unflatten(0, (len(pictures), *pictures.shape[2:])).permute(0, 3, 1, 2)

    def behind(self, like: Tensor) -> Tensor:
        """The sheet [1, 3, S, S] in 0..1."""
        if self.sheet is None:
            return torch.ones(1, 3, *like.shape[2:])
        return torch.einsum("kc,khw->chw", self.sheet, slopes(like.shape[-1])).clamp(0, 1).unsqueeze(0)


def slopes(side: int) -> Tensor:
    """[3, side, side]: ones, and from -1 to 1 downwards and to the right."""
    line = torch.linspace(-1, 1, side)
    return torch.stack([torch.ones(side, side), *torch.meshgrid(line, line, indexing="ij")])


def fit_sheet(where: Tensor, colours: Tensor, prior: Tensor) -> Tensor:
    """The sheet [3, 3] that is nearest to ``colours`` [N, 3] at places of :func:`slopes` ``where`` [N, 3]; ``prior``
    [3] is what its colour and slopes cost."""
    return torch.linalg.solve(where.T @ where + torch.diag(prior), where.T @ colours)


def placed(drawings: Tensor, degrees: int, scale: float) -> Tensor:
    """Premultiplied drawings [B, 4, S, S], turned clockwise and made smaller about their middle."""
    if not degrees and scale == 1.0:
        return drawings
    if scale < SHRUNK:
        drawings = kernels.mixed(drawings, math.sqrt(1 / scale**2 - 1) / 2)
    return kernels.moved(drawings, scale, degrees)


def cut_out(pictures: Tensor) -> Tensor:
    """Plain pictures [B, 3, S, S] in 0..1 on white as premultiplied drawings [B, 4, S, S]: what is white and joined to
    the border is paper."""
    darkest = pictures.amin(1, keepdim=True)
    light = (darkest > PAPER).float()
    border = functional.pad(torch.zeros_like(light)[:, :, 1:-1, 1:-1], (1, 1, 1, 1), value=1.0)
    paper = light * border
    while True:
        more = kernels.beside(paper) * light
        if torch.equal(more, paper):
            break
        paper = more
    edge = ((1 - darkest) / EDGE).clamp(LEAST_EDGE, 1)
    alpha = torch.where(kernels.beside(paper) > 0, edge, torch.ones_like(edge)) * (1 - paper)
    return torch.cat([(pictures - (1 - alpha)).clamp(0, 1), alpha], dim=1)
