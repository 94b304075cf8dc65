"""Flat drawings of discs and bars, transparent around them, for what reads or does looks."""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 128


def tiny_drawings(count: int, seed: int = 0) -> Tensor:
    """Float [count, 4, 128, 128] in 0..1, alpha straight: a coloured disc with two bars of other colours on it."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.arange(SIDE, dtype=torch.float32)
    down, right = line[:, None].expand(SIDE, SIDE), line[None].expand(SIDE, SIDE)
    pictures = torch.zeros(count, 4, SIDE, SIDE)
    for picture in pictures:
        x, y, radius = 50 + 28 * torch.rand(2, generator=generator), 64.0, 34 + 12 * torch.rand(1, generator=generator)
        disc = ((right - x[0]) ** 2 + (down - y) ** 2).sqrt() < radius
        picture[3][disc] = 1.0
        picture[:3, disc] = (0.1 + 0.7 * torch.rand(3, 1, generator=generator)).expand(-1, int(disc.sum()))
        for number in range(2):
            top = 40 + 26 * number + int(6 * torch.rand(1, generator=generator))
            bar = disc & (down > top) & (down < top + 12) & (right > x[1] - 24) & (right < x[1] + 20)
            picture[:3, bar] = (0.05 + 0.8 * torch.rand(3, 1, generator=generator)).expand(-1, int(bar.sum()))
    return pictures


def on_white(drawings: Tensor) -> Tensor:
    """RGB [B, 3, S, S] of such drawings."""
    return drawings[:, :3] * drawings[:, 3:] + 1 - drawings[:, 3:]
