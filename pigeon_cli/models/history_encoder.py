"""What the image generator of a small model sees of the liked images themselves (released weights see none of them).

A taste is a vector and style tokens are eight codes: they tell the set and the colours of a history, not how its
pictures are made. So the UNet also attends to the liked pictures, as tokens that it was trained to read together with
this encoder, and so learns what of a history to take over. What a taste does to a drawing shows best beside the drawing
as it was before; where the memory knows a liked picture's plain drawing, it is read along.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_GROUPS = 16
"""Of channels that are normed together."""


class HistoryEncoder(nn.Module):
    """Liked pictures, each by itself, to tokens for cross-attention, and their mean to a part of the pooled condition.

    Each side of the latents shrinks to a quarter, so that 16 x 16 places become 16 tokens a picture.
    """

    def __init__(self, channels: int, side: int, widths: Sequence[int], context_width: int, pooled_width: int) -> None:
        """``channels`` are all of a picture's; ``widths`` those of the three feature maps, each with half the side of
        the one before.
        """
        super().__init__()
        first, second, third = widths
        self.reads = nn.Conv2d(channels, first, 3, padding=1)
        self.halves = _shrink(first, second)
        self.middle = _Residual(second)
        self.quarters = _shrink(second, third)
        self.last = _Residual(third)
        self.places = nn.Parameter(torch.randn((side // 4) ** 2, context_width) * 0.02)
        self.tokens = nn.Sequential(nn.LayerNorm(third), nn.Linear(third, context_width))
        self.pools = nn.Sequential(nn.LayerNorm(2 * third), nn.Linear(2 * third, third), nn.SiLU())
        self.tells = nn.Linear(third, pooled_width)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures [B, channels, h, w], the last channel 1 where a place is seen and 0 where all is hidden, to tokens
        [B, h w / 16, context_width] and features [B, widths[2]] whose mean over a history :meth:`pool` takes.
        """
        rows = self.last(self.quarters(self.middle(self.halves(self.reads(pictures))))).flatten(2).transpose(1, 2)
        counted = torch.cat([rows.mean(1), rows.float().std(1).to(rows.dtype)], dim=1)
        return self.tokens(rows) + self.places, self.pools(counted)

    def read(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """Histories [B, N, channels, h, w] to tokens [B, N h w / 16, context_width], zero for pictures of which nothing
        is seen, and to what the pooled condition takes [B, pooled_width].
        """
        tokens, features = (part.unflatten(0, history.shape[:2]) for part in self(history.flatten(0, 1)))
        return self.join(tokens, features, history[:, :, -1].flatten(2).amax(2))

    def join(self, tokens: Tensor, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`read` returns, of histories that are read already: tokens [B, N, T, context_width] and features
        [B, N, W] of their pictures, and ``present`` [B, N], 0 for those of which nothing is seen.
        """
        there = present.to(tokens.dtype)
        return (tokens * there[:, :, None, None]).flatten(1, 2), self.pool(features, there)

    def pool(self, features: Tensor, present: Tensor) -> Tensor:
        """The mean of features [B, N, W] of ``present`` pictures [B, N] to [B, pooled_width]; zero where none is."""
        share = present / present.sum(1, keepdim=True).clamp_min(1)
        told: Tensor = self.tells((features * share.unsqueeze(-1)).sum(1))
        return told * (present.amax(1, keepdim=True) > 0)


def _shrink(width: int, wider: int) -> nn.Module:
    return nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, wider, 3, stride=2, padding=1))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(MOST_GROUPS, width), width)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm0, self.norm1 = _norm(width), _norm(width)
        self.conv0, self.conv1 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, values: Tensor) -> Tensor:
        """Same shape as ``values``."""
        inner = self.conv0(functional.silu(self.norm0(values)))
        output: Tensor = values + self.conv1(functional.silu(self.norm1(inner)))
        return output
