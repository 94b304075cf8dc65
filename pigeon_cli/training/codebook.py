"""Keeping a codebook alive: k-means at the start, moving averages after it, dead codes re-drawn (RECIPE.md point 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

RESTART_EVERY = 100


class CodebookKeeper(nn.Module):
    """Moving averages of how often each code is used and of the unit vectors that chose it."""

    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int, decay: float = 0.99, dead_below: float = 0.05) -> None:
        super().__init__()
        self.decay, self.dead_below = decay, dead_below
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", torch.zeros(codes, width))

    def begin(self, rows: Tensor) -> None:
        """Start the averages from codebook ``rows`` [codes, width]."""
        self.counts.fill_(1.0)
        self.sums.copy_(rows)

    @torch.no_grad()
    def update(self, codebook: Tensor, vectors: Tensor, codes: Tensor, step: int) -> None:
        """Move ``codebook`` [codes, width] in place towards unit ``vectors`` [n, width] assigned to ``codes`` [n]."""
        used = torch.bincount(codes, minlength=len(self.counts)).float()
        summed = torch.zeros_like(self.sums).index_add_(0, codes, vectors)
        self.counts.lerp_(used, 1 - self.decay)
        self.sums.lerp_(summed, 1 - self.decay)
        if (step + 1) % RESTART_EVERY == 0:
            dead = (self.counts < self.dead_below).nonzero()[:, 0]
            fresh = vectors[torch.randint(len(vectors), (len(dead),), device=vectors.device)]
            self.counts[dead] = 1.0
            self.sums[dead] = fresh
        codebook.copy_(functional.normalize(self.sums, dim=-1))


@torch.no_grad()
def k_means(vectors: Tensor, count: int, rounds: int = 12) -> Tensor:
    """``count`` unit centres [count, width] of unit ``vectors`` [n, width], n > count; empty centres are re-drawn."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(vectors), generator=generator).to(vectors.device)
    centres = vectors[order[:count]].clone()
    for _ in range(rounds):
        nearest = torch.cat([(part @ centres.T).argmax(-1) for part in vectors.split(8192)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        empty = torch.bincount(nearest, minlength=count) == 0
        sums[empty] = vectors[order[-int(empty.sum()) :]] if empty.any() else sums[empty]
        centres = functional.normalize(sums, dim=-1)
    return centres
