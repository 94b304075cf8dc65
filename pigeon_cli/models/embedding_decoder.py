"""Visual codes to the condition of the image generator (DESIGN.md section 2, "Image generator"; NOTES 2.15)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pigeon_cli.core.configs import EmbeddingDecoderConfig
from pigeon_cli.models.blocks import CrossAttention, FeedForward, SelfAttention, join_heads, split_heads


@dataclass(frozen=True)
class DecodedCondition:
    """What the image generator is conditioned on."""

    context: Tensor
    """[B, queries, context_width]."""
    pooled: Tensor
    """[B, pooled_width]."""


class DecoderBlock(nn.Module):
    """Self-attention of the queries, cross-attention to the codes, feed-forward; all pre-norm."""

    def __init__(self, config: EmbeddingDecoderConfig) -> None:
        super().__init__()
        self.norm0 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.self_attn = SelfAttention(config.width, config.heads)
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.cross_attn = CrossAttention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = FeedForward(config.width, config.mlp_ratio)

    def forward(
        self,
        queries: Tensor,
        codes: Tensor,
        mask: Tensor | None,
        policy: Tensor | None,
        style: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """``queries`` [B or 1, Q, W], ``codes`` [B, L, W] to [B, Q, W]; mask arguments as in CrossAttention.

        ``style``: scale and shift [B, 1, W] of what enters the feed-forward layer.
        """
        queries = queries + self.self_attn(self.norm0(queries))
        queries = queries.expand(len(codes), -1, -1)
        queries = queries + self.cross_attn(self.norm1(queries), codes, mask=mask, policy=policy)
        output: Tensor = queries + self.mlp(_styled(self.norm2(queries), style))
        return output


def _styled(values: Tensor, style: tuple[Tensor, Tensor] | None) -> Tensor:
    """``values`` [B, Q, W] under scale and shift [B, 1, W]."""
    return values if style is None else values * (1 + style[0]) + style[1]


@dataclass(frozen=True)
class StyleChanges:
    """What a style does to the codes of the places and to every layer."""

    matrix: Tensor
    """[B, code_width, code_width]: added to the identity that code vectors pass; what recolours is nearly linear."""
    shift: Tensor
    """[B, 1, W]: added to the queries."""
    layers: Sequence[tuple[Tensor, Tensor]]
    """Scale and shift [B, 1, W] of what enters each layer's feed-forward part, and of what leaves the last layer."""


class StyleModulation(nn.Module):
    """Vectors of a picture's style tokens to what they change; in the beginning nothing."""

    def __init__(self, config: EmbeddingDecoderConfig) -> None:
        super().__init__()
        self.width, self.code_width = config.width, config.code_width
        hidden = config.width if config.style_hidden is None else config.style_hidden
        self.reads = nn.Linear(config.style_tokens * config.code_width, hidden)
        self.recolours = nn.Linear(hidden, config.code_width**2)
        self.changes = nn.Linear(hidden, (3 + 2 * config.depth) * config.width)
        for last in (self.recolours, self.changes):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, vectors: Tensor) -> StyleChanges:
        """``vectors`` [B, style tokens, code_width]."""
        hidden = F.gelu(self.reads(vectors.flatten(1)))
        matrix = self.recolours(hidden).unflatten(1, (self.code_width, self.code_width))
        shift, *rest = self.changes(hidden).unsqueeze(1).split(self.width, dim=-1)
        return StyleChanges(matrix, shift, list(zip(rest[::2], rest[1::2], strict=True)))


class AttentionPool(nn.Module):
    """CLIP-style pooling: the mean token attends to itself and to all rows."""

    def __init__(self, rows: int, width: int, heads: int, output_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(rows + 1, width) * width**-0.5)
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, output_width)

    def forward(self, values: Tensor) -> Tensor:
        """[B, rows, width] to [B, output_width]."""
        rows = torch.cat([values.mean(dim=1, keepdim=True), values], dim=1) + self.positional_embedding
        query = split_heads(self.q_proj(rows[:, :1]), self.heads)
        key, value = split_heads(self.k_proj(rows), self.heads), split_heads(self.v_proj(rows), self.heads)
        pooled: Tensor = self.c_proj(join_heads(F.scaled_dot_product_attention(query, key, value)))
        return pooled[:, 0]


class CodeTransformer(nn.Module):
    """Learned queries that read a masked sequence of code vectors: the part both published decoders share.

    ``output_width`` is the width after the task layer, by default the model width.
    """

    def __init__(self, config: EmbeddingDecoderConfig, output_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.output_width = output_width or config.width
        self.pos_embed = nn.Parameter(torch.zeros(1, config.queries, config.width))
        self.query_embed = nn.Parameter(torch.zeros(1, config.queries, config.width))
        self.in_proj = nn.Linear(config.code_width, config.width)
        if config.style_tokens > 0:
            self.style = StyleModulation(config)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.decode_task_layer = nn.Sequential(
            nn.Linear(config.width, config.width), nn.Tanh(), nn.Linear(config.width, self.output_width)
        )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.query_embed, std=0.02)

    def decode_queries(self, vectors: Tensor, mask: Tensor, keep: Tensor | None = None) -> Tensor:
        """Float [B, L, code_width] and bool [B, L] to [B, queries, output_width].

        More than ``queries`` codes are cut. ``keep`` float [B, L] multiplies attention weights: 0 hides a code exactly
        and still carries a gradient. A row without any code attends to the positions of its empty slots; L = 0
        attends to nothing (NOTES 2.15). With ``style_tokens`` the first codes modulate the layers and have no place.
        """
        style = self._style(vectors, mask, keep)
        first = self.config.style_tokens
        vectors, mask, keep = vectors[:, first:], mask[:, first:], None if keep is None else keep[:, first:]
        length = min(vectors.shape[1], self.config.queries)
        vectors, mask = vectors[:, :length], mask[:, :length]
        if style is not None:
            vectors = vectors + vectors @ style.matrix.to(vectors.dtype)
        codes = self.in_proj(vectors) * mask.unsqueeze(-1) + self.pos_embed[:, :length]
        policy = None if keep is None else (keep[:, :length] * mask)[:, None, None, :]
        # Without a mask the attention runs in its fastest form.
        hidden = None if bool(mask.all()) else mask
        queries: Tensor = self.query_embed if style is None else self.query_embed + style.shift
        for number, block in enumerate(self.blocks):
            queries = block(queries, codes, hidden, policy, None if style is None else style.layers[number])
        leaving = _styled(self.norm(queries), None if style is None else style.layers[-1])
        output: Tensor = self.decode_task_layer(leaving)
        return output

    def _style(self, vectors: Tensor, mask: Tensor, keep: Tensor | None) -> StyleChanges | None:
        """What the style tokens change; a hidden one, and one that is not there, says nothing."""
        count = self.config.style_tokens
        if count == 0:
            return None
        said = mask if keep is None else mask * keep
        told = vectors[:, :count] * said[:, :count].unsqueeze(-1).to(vectors.dtype)
        changes: StyleChanges = self.style(F.pad(told, (0, 0, 0, count - told.shape[1])))
        return changes


class EmbeddingDecoder(CodeTransformer):
    """Decoder of the high-resolution generator: two projections side by side and a pooled vector."""

    def __init__(self, config: EmbeddingDecoderConfig, output_width: int | None = None) -> None:
        super().__init__(config, output_width)
        first, second = config.context_widths
        self.unet_proj_1 = nn.Linear(self.output_width, first)
        self.unet_proj_2 = nn.Linear(self.output_width, second)
        self.unet_attnpool = AttentionPool(config.queries, self.output_width, config.heads, config.pooled_width)

    def forward(self, code_vectors: Tensor, code_mask: Tensor, keep: Tensor | None = None) -> DecodedCondition:
        """Arguments as in :meth:`CodeTransformer.decode_queries`."""
        rows = self.decode_queries(code_vectors, code_mask, keep)
        context = torch.cat([self.unet_proj_1(rows), self.unet_proj_2(rows)], dim=-1)
        return DecodedCondition(context=context, pooled=self.unet_attnpool(rows))


class LowResolutionDecoder(CodeTransformer):
    """Decoder of the low-resolution generator: one projection of the first context width."""

    def __init__(self, config: EmbeddingDecoderConfig, output_width: int | None = None) -> None:
        super().__init__(config, output_width)
        self.unet_proj = nn.Linear(self.output_width, config.context_widths[0])

    def forward(self, code_vectors: Tensor, code_mask: Tensor, keep: Tensor | None = None) -> Tensor:
        """Context [B, queries, context_widths[0]]; arguments as in :meth:`CodeTransformer.decode_queries`."""
        context: Tensor = self.unet_proj(self.decode_queries(code_vectors, code_mask, keep))
        return context
