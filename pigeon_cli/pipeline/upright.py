"""How a history's drawings stand on their paper: turned or made smaller, if they are more like the memory's when they
are put back.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.history.framing import INSIDE
from pigeon_cli.models.memory import Memory
from pigeon_cli.models.outlines import outlines

DEGREES: Final = tuple(sign * degrees for degrees in range(12, 37, 4) for sign in (-1, 1))
"""Clockwise, of which one is looked for."""
SCALES: Final = (0.5, 0.54, 0.58, 0.62, 0.66, 0.7, 0.74, 0.78)
POSES: Final = (
    (0, 1.0),
    *((degrees, INSIDE) for degrees in DEGREES),
    *((0, scale) for scale in SCALES),
)
"""Degrees and sizes, the first being that of drawings as they are."""
SHADES: Final = 255
LEAST_GAIN: Final = 0.06
"""By how much the history's lines must agree better with the memory's when they are put back, in the mean. All of 34
histories that are turned are told so within 5 degrees, 28 where the memory does not hold their pictures."""
LEAST_AGREEMENT: Final = 0.62
"""And how well they must agree then: what the memory knows nothing of, photographs for one, does so to 0.6 in one pose
or another; 68 valid histories that are put back, from 0.64 on."""


def put_back(images: Tensor, degrees: int, scale: float) -> Tensor:
    """RGB pictures [B, 3, S, S] in 0..1 whose drawings were turned clockwise and scaled, as before that; what is not on
    them continues their borders."""
    cosine, sine = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    matrix = images.new_tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]]).expand(len(images), -1, -1)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    # On blank paper rounding errors would be all its lines.
    return (moved * SHADES).round() / SHADES


def upright_lines(memory: Memory, images: Tensor) -> tuple[Tensor, int]:
    """Outlines [B, CELLS] of a history's RGB pictures [B, 3, S, S] in 0..1, put back if that makes them more like the
    memory's, and by how many degrees clockwise they were turned."""
    lines = [outlines(put_back(images, *pose) if number else images) for number, pose in enumerate(POSES)]
    agreement = torch.stack([memory.alike(each)[1].mean() for each in lines])
    best = int(agreement.argmax())
    if float(agreement[best]) < LEAST_AGREEMENT or float(agreement[best] - agreement[0]) < LEAST_GAIN:
        best = 0
    return lines[best], POSES[best][0]
