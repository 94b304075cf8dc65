"""How a history's drawings stand on their sheets, found by comparing them with their plain drawings."""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.nn import functional

from pigeon_cli.models.outlines import centred, line_strength
from pigeon_cli.models.worn_look import placed

COARSE: Final = 64
"""Pixels of the side on which all poses are tried."""
AS_IT_IS: Final = (0, 1.0)
SIZES: Final = (1.0, 0.94, 0.88, 0.82, 0.76, 0.7, 0.64, 0.58, 0.52, 0.47)
TURNS: Final = tuple(sign * degrees for degrees in range(12, 37, 4) for sign in (-1, 1))
TURNED_SIZES: Final = (0.94, 0.83)
"""Of turned drawings, whose corners must stay on the sheet, without and with room for a shadow."""
POSES: Final = (*((0, size) for size in SIZES), *((turn, size) for turn in TURNS for size in TURNED_SIZES))
"""Degrees clockwise and sizes."""
FINER: Final = ((2, 0.02), (1, 0.01))
"""By how much more is tried around the best."""
LEAST_GAIN: Final = 0.03
"""By how much lines must agree better than those of drawings that are left as they are."""


def find_pose(drawings: Tensor, liked: Tensor) -> tuple[int, float]:
    """Degrees clockwise and size of plain premultiplied drawings [B, 4, S, S] in their liked pictures [B, 3, S, S]."""
    small, lines = _small(drawings), _lines(_small(liked))
    agreement = {pose: _agreement(small, lines, pose) for pose in POSES}
    best = max(POSES, key=agreement.__getitem__)
    if agreement[best] < agreement[AS_IT_IS] + LEAST_GAIN:
        return AS_IT_IS
    lines = _lines(liked)
    for degrees, size in FINER:
        best = max(around(best, degrees, size), key=lambda pose: _agreement(drawings, lines, pose))
    return best


def around(pose: tuple[int, float], degrees: int, size: float) -> list[tuple[int, float]]:
    """The pose and those beside it; drawings that are not turned stay so, and none grows."""
    turns = [pose[0] + step * degrees for step in (0, -1, 1)] if pose[0] else [0]
    poses = [(turn, min(1.0, pose[1] + step * size)) for turn in turns for step in (0, -1, 1)]
    return list(dict.fromkeys(poses))


def _agreement(drawings: Tensor, lines: Tensor, pose: tuple[int, float]) -> float:
    put = placed(drawings, *pose)
    return float((_lines(put[:, :3] + 1 - put[:, 3:]) * lines).sum(1).clamp_min(0).mean())


def _small(images: Tensor) -> Tensor:
    return functional.interpolate(images, (COARSE, COARSE), mode="area")


def _lines(pictures: Tensor) -> Tensor:
    """Unit vectors [B, N] of where the lines of RGB pictures are."""
    return centred(functional.avg_pool2d(line_strength(pictures), 3, stride=1, padding=1))
