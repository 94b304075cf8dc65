"""The paper on which drawings stand, told by the borders of their pictures alone."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from pigeon_cli.models import look_kernels as kernels
from pigeon_cli.models.worn_look import fit_sheet, slopes

BORDER: Final = 3
"""Pixels at the border of a picture that are its paper, where nothing is drawn to there."""
DEPARTURES: Final = (0.4, 0.2, 0.1, 0.05)
"""In a channel, from one paper behind all pictures, up to which a pixel is taken for a part of it, step by step."""
SLOPES_PRIOR: Final = 1e-3
"""What slopes of its colours cost, as a share of the data's weight."""
LEAST_PAPER, LEAST_PICTURES = 0.5, 0.8
"""Share of a picture's border that must be of the paper, and of the pictures in which it is."""
FAINT: Final = 0.1
"""Mean departure from the sheet, in a channel, below which a drawing is not seen on it."""
UNLIKE: Final = 0.06
"""Departure from a picture's own paper, in a channel, up to which a pixel is of it; twice that, and it is not."""
AROUND, BLUR = 3, 0.03
"""How far around a drawing, in pixels, there may be a shadow, an outline or a glow of it, and how soft that ends, as a
share of the side."""


def read_paper(pictures: Tensor) -> Tensor | None:
    """The sheet [3, 3], as :class:`pigeon_cli.models.worn_look.WornLook` has it, on which all RGB pictures [B, 3, S, S]
    in 0..1 stand; ``None`` where their borders are not of one."""
    side = pictures.shape[-1]
    border = torch.ones(side, side, dtype=torch.bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    colours, where = pictures[:, :, border].transpose(1, 2), slopes(side)[:, border].T.expand(len(pictures), -1, -1)
    sheet = torch.zeros(3, 3)
    sheet[0] = colours.flatten(0, 1).median(0).values
    prior = torch.tensor([0.0, SLOPES_PRIOR, SLOPES_PRIOR])
    for departure in DEPARTURES:
        paper = (colours - where @ sheet).abs().amax(2) < departure
        if not bool(paper.any()):
            return None
        sheet = fit_sheet(where[paper], colours[paper], int(paper.sum()) * prior)
    paper = (colours - where @ sheet).abs().amax(2) < DEPARTURES[-1]
    shares = paper.float().mean(1)
    return sheet if float((shares >= LEAST_PAPER).float().mean()) >= LEAST_PICTURES else None


def on_paper(picture: Tensor, sheet: Tensor, alpha: Tensor) -> Tensor:
    """An RGB picture [1, 3, S, S] in 0..1 on the sheet [1, 3, S, S] instead of its own paper, of which alone is left
    what is near the drawing of alpha [1, 1, S, S] and unlike that paper."""
    border = torch.cat([picture[:, :, :BORDER].flatten(2), picture[:, :, -BORDER:].flatten(2)], dim=2)
    apart = (picture - border.median(2).values[:, :, None, None]).abs().amax(1, keepdim=True)
    stays = kernels.blurred(kernels.dilated(alpha, AROUND), BLUR).clamp(0, 1) * (apart / UNLIKE - 1).clamp(0, 1)
    return torch.lerp(sheet, picture, stays)


def stands_out(drawing: Tensor, sheet: Tensor) -> bool:
    """Whether a premultiplied drawing [1, 4, S, S] can be seen on the sheet [1, 3, S, S]."""
    apart = (drawing[:, :3] - sheet * drawing[:, 3:]).abs().amax(1).sum()
    return float(apart) >= FAINT * float(drawing[:, 3:].sum())
