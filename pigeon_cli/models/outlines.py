"""Where the lines of a picture are: what two drawings of one thing share, whatever their colours and their finish."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

SIDE: Final = 24
CELLS: Final = SIDE**2
STRONGEST: Final = 6.0
"""Lines count up to so many times the mean: black on white is no more a line than yellow on white."""


@torch.no_grad()
def outlines(images: Tensor) -> Tensor:
    """RGB pictures in 0..1, [B, 3, S, S], to unit vectors [B, CELLS].

    Thick and thin, coloured and black lines at the same places agree; their dot product is a correlation. A picture
    without lines gives zeros.
    """
    # A line may lie a little beside the other's.
    widened = functional.avg_pool2d(line_strength(images), 5, stride=1, padding=2)
    return centred(functional.adaptive_avg_pool2d(widened, SIDE))


def line_strength(images: Tensor) -> Tensor:
    """How strong a line is where, [B, 1, S - 1, S - 1], in RGB pictures [B, 3, S, S]; 1 is a picture's mean."""
    across, down = images.diff(dim=3).abs().mean(1)[:, :-1], images.diff(dim=2).abs().mean(1)[:, :, :-1]
    lines = across + down
    return (lines / lines.mean((1, 2), keepdim=True).clamp_min(1e-6)).clamp(max=STRONGEST).unsqueeze(1)


def centred(maps: Tensor) -> Tensor:
    """Maps [B, 1, h, w] as unit vectors [B, h w] about their means, whose dot products are correlations."""
    flat = maps.flatten(1)
    return functional.normalize(flat - flat.mean(1, keepdim=True), dim=1)
