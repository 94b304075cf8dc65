"""Small heads that compare images and words before anything is drawn (DESIGN.md, "The shape of a fast run")."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import ScorerConfig


class Scorer(nn.Module):
    """Unit vectors for what an image shows, how it is drawn, and what words ask for.

    Images are read as the decoder's context, which can be had from codes alone, so one scorer serves candidates that
    are not drawn yet and drawn pixels. ``meaning`` and ``words`` share one space, ``style`` has its own; scores are
    dot products.
    """

    feature_mean: Tensor
    feature_deviation: Tensor
    standard_mean: Tensor
    """[3]: history (style with style), reference (meaning with meaning), words (meaning with words)."""
    standard_deviation: Tensor

    def __init__(self, config: ScorerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.in_proj = nn.Linear(config.input_width, width)
        self.pos_embed = nn.Parameter(torch.randn(config.queries, width) * 0.02)
        self.blocks = nn.ModuleList(_block(width, config.heads) for _ in range(config.depth))
        self.meaning_head = _head(2 * width, width)
        self.style_head = _head(2 * width, width)
        self.text_embedding = nn.Embedding(config.text_size, width)
        self.text_projection = nn.Linear(width, width)
        # Of contexts over train pictures: their values differ in size by orders of magnitude.
        self.register_buffer("feature_mean", torch.zeros(config.input_width))
        self.register_buffer("feature_deviation", torch.ones(config.input_width))
        # Means and deviations of the three cosines over train requests, so that they may be added up.
        self.register_buffer("standard_mean", torch.zeros(3))
        self.register_buffer("standard_deviation", torch.ones(3))

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts [B, Q, input_width] to unit vectors of meaning and of style, [B, width] each."""
        values = self.in_proj((context - self.feature_mean) / self.feature_deviation) + self.pos_embed
        for block in self.blocks:
            values = block(values)
        pooled = torch.cat([values.mean(1), values.float().std(1).to(values.dtype)], dim=1)
        meaning, style = self.meaning_head(pooled), self.style_head(pooled)
        return functional.normalize(meaning, dim=-1), functional.normalize(style, dim=-1)

    def words(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Text ids int64 [B, L], of which bool ``mask`` [B, L] counts, to unit vectors [B, width]."""
        weights = mask.unsqueeze(-1).to(self.text_embedding.weight.dtype)
        mean = (self.text_embedding(ids) * weights).sum(1) / weights.sum(1).clamp_min(1)
        return functional.normalize(self.text_projection(mean), dim=-1)


def _block(width: int, heads: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )


def _head(input_width: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(input_width, width), nn.GELU(), nn.Linear(width, width))
