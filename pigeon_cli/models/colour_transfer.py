"""The colours of one picture for the lines of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from pigeon_cli.models.look_kernels import premultiplied, straight
from pigeon_cli.models.worn_look import cut_out

FLOOR: Final = 1e-3
"""Added to the variances: what has one colour is told nothing of how colours spread."""
INSIDE: Final = 0.9
"""Least alpha of a place whose colour counts: beside paper colours are mixed with it."""
FEWEST: Final = 50
"""Places, below which nothing is told of colours."""


@dataclass(frozen=True)
class ColourSpread:
    """Of colours in 0..1: their mean [3] and covariance [3, 3]."""

    mean: Tensor
    covariance: Tensor


def spread_within(picture: Tensor, drawing: Tensor) -> ColourSpread | None:
    """That of a picture [3, S, S] in 0..1 where the premultiplied ``drawing`` [1, 4, S, S] lies, in float64; ``None``
    where that is hardly anywhere."""
    colours = picture[:, drawing[0, 3] >= INSIDE].double()
    return ColourSpread(colours.mean(1), torch.cov(colours)) if colours.shape[1] >= FEWEST else None


def spread_of(picture: Tensor) -> ColourSpread | None:
    """That of what is drawn on a plain picture [3, S, S] in 0..1 on white; ``None`` for hardly anything."""
    cut = cut_out(picture.unsqueeze(0))
    return spread_within(straight(cut)[0][0], cut)


def in_colours(picture: Tensor, wanted: ColourSpread) -> Tensor:
    """What is drawn on a plain picture [3, S, S] in 0..1 on white, :func:`recoloured`: the same shape."""
    changed = recoloured(cut_out(picture.unsqueeze(0)), wanted)[0]
    return (changed[:3] + 1 - changed[3:]).clamp(0, 1)


def recoloured(drawing: Tensor, wanted: ColourSpread) -> Tensor:
    """A premultiplied drawing [1, 4, S, S] with ``wanted`` mean and covariance of its colours.

    Of all linear maps that do this, by the one that changes colours least (Pitié and Kokaram, *The linear
    Monge-Kantorovitch linear colour mapping for example-based colour transfer*, 2007).
    """
    colours, alpha = straight(drawing)
    own = spread_within(colours[0], drawing)
    if own is None:
        return drawing
    change = _least_change(own.covariance, wanted.covariance.double())
    rows = (colours[0].flatten(1).T.double() - own.mean) @ change + wanted.mean.double()
    return premultiplied(rows.T.view_as(colours).clamp(0, 1).float(), alpha)


def _least_change(one: Tensor, other: Tensor) -> Tensor:
    """The symmetric matrix T [3, 3] with T one T = other, of covariances with :data:`FLOOR`."""
    floor = FLOOR * torch.eye(3, dtype=one.dtype)
    root, inverse = _power(one + floor, 0.5), _power(one + floor, -0.5)
    return inverse @ _power(root @ (other + floor) @ root, 0.5) @ inverse


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0) ** exponent) @ vectors.T
