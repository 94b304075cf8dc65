"""Small heads that compare images and words before anything is drawn (DESIGN.md, "The shape of a fast run")."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import ScorerConfig


class Scorer(nn.Module):
    """Unit vectors for what an image shows, how it is drawn, and what words ask for.

    ``meaning`` and ``words`` share one space, ``style`` has its own; scores are dot products.
    """

    feature_mean: Tensor
    feature_deviation: Tensor
    standard_mean: Tensor
    """[3]: history (style with style), reference (meaning with meaning), words (meaning with words)."""
    standard_deviation: Tensor

    def __init__(self, config: ScorerConfig) -> None:
        super().__init__()
        self.config = config
        self.meaning_head = _head(config.input_width, config.width)
        self.style_head = _head(config.input_width, config.width)
        self.text_embedding = nn.Embedding(config.text_size, config.width)
        self.text_projection = nn.Linear(config.width, config.width)
        # Of pooled contexts over train pictures: their values differ in size by orders of magnitude.
        self.register_buffer("feature_mean", torch.zeros(config.input_width))
        self.register_buffer("feature_deviation", torch.ones(config.input_width))
        # Means and deviations of the three cosines over train requests, so that they may be added up.
        self.register_buffer("standard_mean", torch.zeros(3))
        self.register_buffer("standard_deviation", torch.ones(3))

    def meaning(self, features: Tensor) -> Tensor:
        """Pooled contexts (:func:`pool_context`) [B, input_width] to unit vectors [B, width]."""
        return functional.normalize(self.meaning_head(self._standard(features)), dim=-1)

    def style(self, features: Tensor) -> Tensor:
        """Pooled contexts (:func:`pool_context`) [B, input_width] to unit vectors [B, width]."""
        return functional.normalize(self.style_head(self._standard(features)), dim=-1)

    def _standard(self, features: Tensor) -> Tensor:
        return (features - self.feature_mean) / self.feature_deviation

    def words(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Text ids int64 [B, L], of which bool ``mask`` [B, L] counts, to unit vectors [B, width]."""
        weights = mask.unsqueeze(-1).to(self.text_embedding.weight.dtype)
        mean = (self.text_embedding(ids) * weights).sum(1) / weights.sum(1).clamp_min(1)
        return functional.normalize(self.text_projection(mean), dim=-1)


def pool_context(context: Tensor) -> Tensor:
    """Mean and deviation over the queries of the decoder's context: [B, Q, C] to float32 [B, 2 C].

    The context can be had from codes alone, so one scorer serves candidates that are not drawn yet and drawn pixels.
    """
    values = context.float()
    return torch.cat([values.mean(1), values.std(1)], dim=1)


def _head(input_width: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(input_width, width), nn.GELU(), nn.Linear(width, width))
