"""Which patches become tokens (DESIGN.md section 2, "Visual tokenizer"; NOTES 2.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pigeon_cli.core.configs import VisualTokenizerConfig


class TokenSelector(nn.Module):
    """Two log-probabilities per patch from the patch itself and the mean of all patches; class 0 = keep."""

    def __init__(self, config: VisualTokenizerConfig) -> None:
        super().__init__()
        width = config.width
        self.in_conv = nn.Sequential(nn.LayerNorm(width, eps=config.norm_epsilon), nn.Linear(width, width), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 2),
        )

    def forward(self, features: Tensor) -> Tensor:
        """[B, N, width] to float32 log-probabilities [B, N, 2]."""
        local, shared = self.in_conv(features).chunk(2, dim=-1)
        shared = shared.mean(1, keepdim=True).expand_as(local)
        scores: Tensor = self.out_conv(torch.cat([local, shared], dim=-1))
        return F.log_softmax(scores.float(), dim=-1)


def keep_decision(
    log_probabilities: Tensor, noise: Tensor | None = None, temperature: float = 1.0, suffix: bool = False
) -> Tensor:
    """Hard keep decision with a straight-through gradient (Gumbel-softmax).

    ``log_probabilities`` [B, N, 2]; ``noise`` is [B, N, 2] of Exp(1) draws, or ``None`` for the deterministic
    decision, in which a tie keeps. Returns float32 [B, N], exactly 0 or 1; at least one token of each image is 1 (the
    one with the largest margin, where all would be dropped). With ``suffix`` a patch before a kept one is kept too.
    """
    scores = log_probabilities if noise is None else log_probabilities - noise.log()
    margin = scores[..., 0] - scores[..., 1]
    hard = margin >= 0
    none_kept = ~hard.any(dim=1, keepdim=True)
    best = torch.zeros_like(hard).scatter_(1, margin.argmax(dim=1, keepdim=True), True)
    keep = (hard | (none_kept & best)).to(margin.dtype)
    soft = torch.sigmoid(margin / temperature)
    # The difference is exactly zero, so only the gradient is added.
    decided = keep + (soft - soft.detach())
    return decided.flip(1).cummax(1).values.flip(1) if suffix else decided
