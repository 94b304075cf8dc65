"""The colours of one picture for the lines of another."""

from __future__ import annotations

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
"""Places, below which colours stay."""


def in_colours_of(drawing: Tensor, other: Tensor) -> Tensor:
    """A plain picture [3, S, S] in 0..1 on white in the colours of what is drawn on another one: the same shape."""
    cut, wanted = cut_out(torch.stack([drawing, other])).split(1)
    changed = recoloured(cut, colours_within(straight(wanted)[0][0], wanted))[0]
    return (changed[:3] + 1 - changed[3:]).clamp(0, 1)


def colours_within(picture: Tensor, drawing: Tensor) -> Tensor:
    """Those [N, 3] of a picture [3, S, S] in 0..1 where the premultiplied ``drawing`` [1, 4, S, S] lies."""
    return picture[:, drawing[0, 3] >= INSIDE].T


def recoloured(drawing: Tensor, wanted: Tensor) -> Tensor:
    """A premultiplied drawing [1, 4, S, S] with the mean and the covariance of colours ``wanted`` [N, 3] in 0..1.

    Of all linear maps that do this, by the one that changes colours least (Pitié and Kokaram, *The linear
    Monge-Kantorovitch linear colour mapping for example-based colour transfer*, 2007).
    """
    colours, alpha = straight(drawing)
    drawn, wanted = colours_within(colours[0], drawing).double(), wanted.double()
    if min(len(drawn), len(wanted)) < FEWEST:
        return drawing
    change = _least_change(_covariance(drawn), _covariance(wanted))
    rows = (colours[0].flatten(1).T.double() - drawn.mean(0)) @ change + wanted.mean(0)
    return premultiplied(rows.T.view_as(colours).clamp(0, 1).float(), alpha)


def _covariance(colours: Tensor) -> Tensor:
    return torch.cov(colours.T) + FLOOR * torch.eye(3, dtype=colours.dtype)


def _least_change(one: Tensor, other: Tensor) -> Tensor:
    """The symmetric matrix T [3, 3] with T one T = other, of covariances."""
    root, inverse = _power(one, 0.5), _power(one, -0.5)
    return inverse @ _power(root @ other @ root, 0.5) @ inverse


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0) ** exponent) @ vectors.T
