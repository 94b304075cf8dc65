"""Dropped patches are folded into the kept tokens (DESIGN.md section 2, "Visual tokenizer"; NOTES 2.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pigeon_cli.core.configs import VisualTokenizerConfig
from pigeon_cli.models.blocks import CrossAttention, FeedForward, SelfAttention

POLICY_EPSILON = 1e-6
"""Added to the attention weights of the published merger."""


class MergerBlock(nn.Module):
    """Causal attention among kept tokens, cross-attention to dropped features, feed-forward; all pre-norm."""

    def __init__(self, config: VisualTokenizerConfig) -> None:
        super().__init__()
        self.norm0 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.token_causal_attn = SelfAttention(config.width, config.merger_heads)
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.token_cross_attn = CrossAttention(config.width, config.merger_heads)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = FeedForward(config.width, config.mlp_ratio)

    def forward(self, tokens: Tensor, vision: Tensor, kept: Tensor, dropped: Tensor) -> Tensor:
        """``tokens`` and ``vision`` [B, N, W]; ``kept`` [B, 1, N, N] and ``dropped`` [B, 1, 1, N] multiply weights."""
        tokens = tokens + self.token_causal_attn(self.norm0(tokens), policy=kept, epsilon=POLICY_EPSILON)
        tokens = tokens + self.token_cross_attn(self.norm1(tokens), vision, policy=dropped, epsilon=POLICY_EPSILON)
        output: Tensor = tokens + self.mlp(self.norm2(tokens))
        return output


class TokenMerger(nn.Module):
    """Features of all patches and a keep decision to merged features; only rows of kept tokens have a meaning."""

    def __init__(self, config: VisualTokenizerConfig) -> None:
        super().__init__()
        self.ln_vision = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.blocks = nn.ModuleList(MergerBlock(config) for _ in range(config.merger_depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, features: Tensor, keep: Tensor) -> Tensor:
        """``features`` [B, N, W], ``keep`` float [B, N] of 0 and 1 (its gradient is used) to [B, N, W]."""
        kept = causal_policy(keep)
        dropped = (1 - keep)[:, None, None, :]
        vision = self.ln_vision(features)
        tokens = features
        for block in self.blocks:
            tokens = block(tokens, vision, kept, dropped)
        output: Tensor = self.norm(tokens)
        return output


def causal_policy(keep: Tensor) -> Tensor:
    """Kept tokens at or before each row, and the row itself: float [B, N] to [B, 1, N, N]."""
    count = keep.shape[1]
    own = torch.eye(count, dtype=keep.dtype, device=keep.device)
    before = torch.ones(count, count, dtype=keep.dtype, device=keep.device).tril(-1)
    return (keep[:, None, :] * before + own)[:, None]
