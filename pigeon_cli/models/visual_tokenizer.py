"""Pixels to a variable number of codes (DESIGN.md section 2, "Visual tokenizer")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pigeon_cli.core.configs import VisualTokenizerConfig
from pigeon_cli.models.eva_vit import EvaVisionTransformer
from pigeon_cli.models.merger import TokenMerger
from pigeon_cli.models.quantizer import Quantizer
from pigeon_cli.models.selector import TokenSelector, keep_decision
from pigeon_cli.models.style_reader import StyleReader


@dataclass(frozen=True)
class TokenizedImages:
    """Codes of a batch: N tokens an image, first those of its style, if any, then patches in reading order."""

    codes: Tensor
    """int64 [B, N], -1 where the patch was dropped."""
    keep: Tensor
    """bool [B, N]."""
    features: Tensor
    """Merger (and style reader) output [B, N, width]; rows of dropped patches have no meaning."""
    vectors: Tensor
    """Task layer output [B, N, code_width], before quantisation."""


class VisualTokenizer(nn.Module):
    """ViT encoder, selector, merger, task layer and quantizer."""

    def __init__(self, config: VisualTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = EvaVisionTransformer(config)
        self.selector = TokenSelector(config)
        self.merger = TokenMerger(config)
        self.task_layer = nn.Sequential(
            nn.Linear(config.width, config.width), nn.Tanh(), nn.Linear(config.width, config.code_width)
        )
        if config.style_tokens > 0:
            self.style_reader = StyleReader(config)
        self.quantizer = Quantizer(config.code_count, config.code_width)

    def patch_features(self, pixels: Tensor) -> Tensor:
        """Float [B, 3, image_size, image_size] to [B, N, width], without the class token."""
        rows: Tensor = self.encoder(pixels)
        return rows[:, 1:]

    def select(self, features: Tensor, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Keep decision float32 [B, N] of patch features [B, N, width].

        ``noise`` [B, N, 2] of Exp(1) draws, or ``None`` (no randomness); the gradient is straight-through, see
        :func:`pigeon_cli.models.selector.keep_decision`.
        """
        return keep_decision(self.selector(features), noise, temperature, self.config.suffix_selection)

    def merge(self, features: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Merged features [B, N, width] and their task vectors [B, N, code_width]; differentiable in both inputs."""
        merged = self.merger(features, keep)
        return merged, self.task_layer(merged)

    def quantize(self, vectors: Tensor) -> Tensor:
        """Codes int64 [B, N] of the patches' task vectors [B, N, code_width]."""
        return self.quantizer.encode(vectors, slice(self.config.patch_codes))

    def quantize_style(self, vectors: Tensor) -> Tensor:
        """Codes int64 [B, S] of the style tokens' task vectors [B, S, code_width], which are codes of their own."""
        first = self.config.patch_codes
        return self.quantizer.encode(vectors, slice(first, None)) + first

    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> TokenizedImages:
        """Tokenize normalised pixels float [B, 3, image_size, image_size]; ``noise`` as in :meth:`select`."""
        features = self.patch_features(pixels)
        keep = self.select(features, noise)
        merged, vectors = self.merge(features, keep)
        kept, codes = keep > 0.5, self.quantize(vectors)
        if self.config.style_tokens > 0:
            style, style_vectors = self.style_reader(features)
            kept = torch.cat([torch.ones_like(kept[:, :1]).expand(-1, style.shape[1]), kept], dim=1)
            codes = torch.cat([self.quantize_style(style_vectors), codes], dim=1)
            merged = torch.cat([style.to(merged.dtype), merged], dim=1)
            vectors = torch.cat([style_vectors.to(vectors.dtype), vectors], dim=1)
        return TokenizedImages(codes=codes.masked_fill(~kept, -1), keep=kept, features=merged, vectors=vectors)

    def forward(self, pixels: Tensor, noise: Tensor | None = None) -> TokenizedImages:
        """Same as :meth:`encode`."""
        return self.encode(pixels, noise)


def pack(codes: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Move kept codes to the left, in order.

    ``codes`` int64 [B, N], ``keep`` bool [B, N] to packed int64 [B, L] (-1 as padding) and mask bool [B, L];
    L is the largest number of kept codes in the batch.
    """
    counts = keep.sum(dim=1)
    length = int(counts.max()) if len(counts) else 0
    order = (~keep).to(torch.int8).argsort(dim=1, stable=True)[:, :length]
    mask = torch.arange(length, device=codes.device) < counts[:, None]
    return codes.gather(1, order).masked_fill(~mask, -1), mask
