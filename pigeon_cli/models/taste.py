"""What pictures of one taste share, as a vector (``mini``; released weights have no taste reader).

A picture's style tokens say little of its hand and colours: they were learned by drawing one picture in the style of
another, which tells them slowly. Colours, edges and the encoder's features counted over a whole picture say it at once,
and the mean over a history says it nearly always.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import TasteConfig

LEVELS: Final = 5
"""Of every colour channel in the histogram."""
BORDER: Final = 4
"""Pixels at a picture's border that are its background."""
EDGES: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""Between the bins of how strong an edge is."""
SCALES: Final = (1, 2, 4)
COUNTED: Final = LEVELS**3 + 15 + len(SCALES) * 2 * (len(EDGES) + 1)
"""Statistics of a picture beside those of the encoder's features."""


class TasteReader(nn.Module):
    """Statistics of a picture to its taste vector; a history's taste is the mean of its pictures'."""

    def __init__(self, config: TasteConfig) -> None:
        super().__init__()
        numbers = COUNTED + 2 * config.feature_width
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("deviation", torch.ones(numbers))
        self.reads = nn.Sequential(
            nn.Linear(numbers, config.hidden_width), nn.GELU(), nn.Linear(config.hidden_width, config.width)
        )
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, statistics: Tensor) -> Tensor:
        """:func:`picture_statistics` [..., N] to [..., width]."""
        vectors: Tensor = self.reads((statistics - self.mean) / self.deviation)
        return vectors


@torch.no_grad()
def picture_statistics(images: Tensor, features: Tensor) -> Tensor:
    """Float32 [B, N] of RGB images [B, 3, S, S] in 0..1 and the encoder's patch features [B, patches, W]."""
    features = features.float()
    encoded = torch.cat([features.mean(1), features.std(1)], dim=1)
    return torch.cat([encoded, _colours(images.float()), _edges(images.float())], dim=1)


def _colours(images: Tensor) -> Tensor:
    """Roots of a colour histogram's shares, colours of three borders, mean and deviation."""
    levels = (functional.avg_pool2d(images, 2) * (LEVELS - 0.01)).long().flatten(2)
    colours = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]
    borders = [images[:, :, :BORDER], images[:, :, :, :BORDER], images[:, :, -BORDER:]]
    means = [part.mean((2, 3)) for part in (*borders, images)]
    return torch.cat([_shares(colours, LEVELS**3), *means, images.std((2, 3))], dim=1)


def _edges(images: Tensor) -> Tensor:
    """Roots of the shares of steps and of bends by their strength, at several scales."""
    between = torch.tensor(EDGES, device=images.device)
    found = []
    for scale in SCALES:
        pooled = functional.avg_pool2d(images, scale)
        across, down = pooled.diff(dim=3)[:, :, :-1], pooled.diff(dim=2)[..., :-1]
        steps = (across.square() + down.square()).sum(1).sqrt()
        middle = pooled[:, :, 1:-1, 1:-1]
        around = pooled[:, :, :-2, 1:-1] + pooled[:, :, 2:, 1:-1] + pooled[:, :, 1:-1, :-2] + pooled[:, :, 1:-1, 2:]
        bends = (4 * middle - around).abs().sum(1)
        found += [_shares(torch.bucketize(part, between).flatten(1), len(EDGES) + 1) for part in (steps, bends)]
    return torch.cat(found, dim=1)


def _shares(bins: Tensor, count: int) -> Tensor:
    """Roots of each row's shares of ``count`` bins, int64 [B, n] to float [B, count]."""
    shares = torch.zeros(len(bins), count, device=bins.device)
    return shares.scatter_add_(1, bins, torch.full(bins.shape, 1 / bins.shape[1], device=bins.device)).sqrt()
