"""Reads a look off pairs: a history's pictures beside the plain drawings that they are known to be of.

Nothing is trained for it. A look is put together step by step (:mod:`pigeon_cli.models.worn_look`), and of each step
that version is taken which makes the plain drawings most like the liked pictures. What falls on all of them alike is
the look; a pair that it does not explain is of two different drawings and is left out.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.models import look_kernels as kernels
from pigeon_cli.models.colour_maps import ColourPairs, read_colour_map
from pigeon_cli.models.look_pose import FINER, around, find_pose
from pigeon_cli.models.worn_look import Shadow, WornLook, fit_sheet, placed, slopes

AROUND: Final = 13
"""Pixels around a drawing that may be its shadow's."""
LEAST_SHEET: Final = 200
"""Pixels of a sheet by which its colours are told."""
SHEET_PRIOR: Final = (1e-6, 2e-4, 2e-4)
"""What its colour and slopes cost, as shares of the data's weight."""
SHEET_OUTLIER: Final = 0.35
WHITE: Final = 0.01
"""Mean difference from white up to which paper is white."""
INSIDE, INSIDE_STEPS = 0.9, 2
"""Alpha of what is inside a drawing, and how many pixels from its border it begins."""
LEAST_INSIDE, MOST_PAIRS = 50, 4000
"""Pairs of colours."""
LINE_WEIGHT, LINE_RADIUS = 60.0, 1.0
"""How much less a pixel on a line counts, whose colour is uncertain, and how near, in pixels, it is on it."""
STRANGE, STRANGEST = 2.5, 0.05
"""A picture whose colours are told so many times worse than the middle one's, and worse than that, is left out."""
CELLS: Final = range(10, 49)
CELL_SHARE, CELL_BLUR = 0.12, 2.0
"""Large pixels are told where pictures lose, by being made of them, so little of what a blur by pixels would cost."""
SOFTNESS: Final = (1.2, 1.5, 1.8, 2.1, 2.4, 2.7, 3.0)
"""In pixels of the side ``SIDE``."""
SHIFTS_RIGHT, SHIFTS_DOWN, SHADOW_RADII = (-8, -6, -5, -4, 4, 5, 6, 8), (3, 4, 5, 6, 8), (1.3, 2.5, 3.8)
LEAST_DARKNESS, SHADOW_SHARE = 0.08, 0.6
"""Of a shadow, and what may be left unexplained around drawings by it."""
SIDE: Final = 128
"""Of all pictures."""
GAIN: Final = 0.9
"""A softness or a shadow must bring the error down to that."""


def read_look(drawings: Tensor, liked: Tensor) -> WornLook | None:
    """The look of RGB pictures [B, 3, 128, 128] in 0..1, by the premultiplied plain drawings [B, 4, 128, 128] that they
    show; ``None`` where they say too little."""
    first = _plainest(drawings, liked)
    if first is None:
        return None
    look, errors = first
    known = errors <= max(STRANGE * float(errors.median()), STRANGEST)
    if not bool(known.all()):
        drawings, liked = drawings[known], liked[known]
        again = _plainest(drawings, liked)
        if again is None:
            return None
        look = again[0]
    look = _with_shadow(_with_grain(look, drawings, liked), drawings, liked)
    error = math.inf
    for degrees, size in ((1, FINER[0][1]), FINER[1]):
        poses = around((look.degrees, look.scale), degrees, size)
        error, look = _best(
            [dataclasses.replace(look, degrees=turn, scale=scale) for turn, scale in poses], drawings, liked
        )
    drawn = float((liked - look.behind(liked)).abs().mean())
    return dataclasses.replace(look, error=error / max(drawn, 1e-3))


def _plainest(drawings: Tensor, liked: Tensor) -> tuple[WornLook, Tensor] | None:
    """Pose, sheet and colours, and the mean error [B] of every picture's colours; ``None`` where there are too few."""
    degrees, scale = find_pose(drawings, liked)
    put = placed(drawings, degrees, scale)
    colour, alpha = kernels.straight(put)
    inside = _inside(alpha)
    if int(inside.sum()) < LEAST_INSIDE:
        return None
    weights = 1 / (1 + LINE_WEIGHT * (_steepness(colour) + _steepness(liked)))
    places = inside[:, 0].nonzero()
    chosen = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[:MOST_PAIRS]
    picture, row, column = places[chosen].T
    pairs = ColourPairs(
        colour[picture, :, row, column], liked[picture, :, row, column], weights[picture, row, column], picture
    )
    colours = read_colour_map(pairs)
    of_picture = [pairs.only(picture == number) for number in range(len(drawings))]
    errors = torch.stack([some.error(colours) / some.weights.sum().clamp_min(1e-6) for some in of_picture])
    return WornLook(colours, degrees, scale, sheet=_sheet(alpha, liked)), errors


def _inside(alpha: Tensor) -> Tensor:
    """Bool [B, 1, S, S]: what is not at a drawing's border."""
    outside = (alpha <= INSIDE).float()
    for _ in range(INSIDE_STEPS):
        outside = kernels.beside(outside)
    return outside == 0


def _steepness(pictures: Tensor) -> Tensor:
    """[B, S, S]: how much brightness changes there, a pixel."""
    smooth = kernels.blurred(pictures.mean(1, keepdim=True), LINE_RADIUS / SIDE)
    wide = functional.pad(smooth, (1, 1, 1, 1), mode="replicate")
    across, down = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2], wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
    return torch.hypot(across, down)[:, 0] / 2


def _sheet(alpha: Tensor, liked: Tensor) -> Tensor | None:
    """The sheet [3, 3] that shows away from all drawings; ``None`` for white paper, or where hardly any shows."""
    away = kernels.dilated(alpha, AROUND)[:, 0] <= 0.02
    if int(away.sum()) < LEAST_SHEET:
        return None
    colours = liked.permute(0, 2, 3, 1)[away]
    if float((colours - 1).abs().mean()) < WHITE:
        return None
    where = slopes(liked.shape[-1]).permute(1, 2, 0).expand(len(liked), -1, -1, -1)[away]
    usual = ((colours - colours.median(0).values).abs().amax(1, keepdim=True) < SHEET_OUTLIER).float()
    return fit_sheet(where * usual, colours, len(colours) * torch.tensor(SHEET_PRIOR))


def _with_grain(look: WornLook, drawings: Tensor, liked: Tensor) -> WornLook:
    """With the large pixels that pictures are made of, or as far out of focus as they are."""
    cells = read_cells(liked)
    if cells is not None:
        return dataclasses.replace(look, cells=cells)
    soft = [dataclasses.replace(look, softness=radius / SIDE) for radius in SOFTNESS]
    error, best = _best(soft, drawings, liked)
    return best if error < GAIN * _error(look, drawings, liked) else look


def read_cells(liked: Tensor) -> int | None:
    """How many large pixels RGB pictures [B, 3, S, S] in 0..1 are across that are made of such; ``None`` for others."""
    most = CELL_SHARE * float((kernels.blurred(liked, CELL_BLUR / SIDE) - liked).abs().mean())
    for count in CELLS:
        rows = torch.arange(liked.shape[-1]) * count // liked.shape[-1]
        share = functional.one_hot(rows, count).float()
        means = torch.einsum("bchw,hi,wj->bcij", liked, share / share.sum(0), share / share.sum(0))
        if float((means[:, :, rows][:, :, :, rows] - liked).abs().mean()) < most:
            return count
    return None


def _with_shadow(look: WornLook, drawings: Tensor, liked: Tensor) -> WornLook:
    """With the shadow that explains best what is around drawings, if there is one."""
    alpha = placed(drawings, look.degrees, look.scale)[:, 3:]
    left = (liked - look.behind(liked)) * (1 - alpha)
    unexplained = float(left.square().sum())
    shadows = []
    for right, down, radius in itertools.product(SHIFTS_RIGHT, SHIFTS_DOWN, SHADOW_RADII):
        shadow = Shadow(right, down, radius / SIDE, torch.zeros(3))
        cover = shadow.cover(alpha) * (1 - alpha)
        weight = cover.square().sum().clamp_min(1e-6)
        darkness = (cover * left).sum((0, 2, 3)) / weight
        shadows.append((float(darkness.square().sum() * weight), dataclasses.replace(shadow, darkness=darkness)))
    explained, best = max(shadows, key=lambda one: one[0])
    if unexplained - explained > SHADOW_SHARE * unexplained or float(best.darkness.abs().max()) < LEAST_DARKNESS:
        return look
    shaded = dataclasses.replace(look, shadow=best)
    return shaded if _error(shaded, drawings, liked) < GAIN * _error(look, drawings, liked) else look


def _best(looks: list[WornLook], drawings: Tensor, liked: Tensor) -> tuple[float, WornLook]:
    """The least error and the look that has it, of equals the first."""
    return min(((_error(look, drawings, liked), look) for look in looks), key=lambda one: one[0])


def _error(look: WornLook, drawings: Tensor, liked: Tensor) -> float:
    return float((look.wear(drawings) - liked).abs().mean())
