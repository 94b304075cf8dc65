"""How a picture is drawn, as a few tokens of its own (``mini``; released tokenizers have none)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pigeon_cli.core.configs import VisualTokenizerConfig
from pigeon_cli.models.blocks import CrossAttention, FeedForward

DEPTH = 2
MLP_RATIO = 2.0


class StyleBlock(nn.Module):
    """Cross-attention to a picture's features, then feed-forward; pre-norm."""

    def __init__(self, config: VisualTokenizerConfig) -> None:
        super().__init__()
        self.norm0 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.cross_attn = CrossAttention(config.width, config.encoder_heads)
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = FeedForward(config.width, MLP_RATIO)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """``tokens`` [B, S, W], ``features`` [B, N, W] to [B, S, W]."""
        tokens = tokens + self.cross_attn(self.norm0(tokens), features)
        output: Tensor = tokens + self.mlp(self.norm1(tokens))
        return output


class StyleReader(nn.Module):
    """Learned queries read a picture's patch features, and their mean and deviation, into style tokens.

    Task vectors are standardised over pictures: what is alike in all of them would else fill the unit sphere that codes
    lie on, and nothing would be told from anything.
    """

    def __init__(self, config: VisualTokenizerConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, config.style_tokens, config.width))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.blocks = nn.ModuleList(StyleBlock(config) for _ in range(DEPTH))
        self.task_layer = nn.Linear(config.width, config.code_width)
        self.standardise = nn.BatchNorm1d(config.style_tokens * config.code_width, affine=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Patch features [B, N, W] to style rows [B, S, W] and their task vectors [B, S, code_width]."""
        patches = self.norm(features)
        mean, deviation = patches.mean(1, keepdim=True), patches.float().std(1, keepdim=True).to(patches.dtype)
        seen = torch.cat([patches, mean, deviation], dim=1)
        tokens = self.queries.to(seen.dtype).expand(len(seen), -1, -1)
        for block in self.blocks:
            tokens = block(tokens, seen)
        # In the weights' own type: autocast hands on bfloat16 where the running figures are float32.
        values = self.task_layer(tokens).to(self.task_layer.weight.dtype)
        vectors: Tensor = self.standardise(values.flatten(1)).view_as(values)
        return tokens, vectors
