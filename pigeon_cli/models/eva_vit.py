"""EVA-CLIP vision transformer without its final norm and head (DESIGN.md section 2, "Visual tokenizer")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pigeon_cli.core.configs import VisualTokenizerConfig
from pigeon_cli.models.blocks import FeedForward, join_heads, split_heads


class EvaAttention(nn.Module):
    """Self-attention with a bias on queries and values but none on keys (NOTES 2.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, values: Tensor) -> Tensor:
        """[B, N, W] to [B, N, W]."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        joint = F.linear(values, self.qkv.weight, bias)
        query, key, value = (split_heads(part, self.heads) for part in joint.chunk(3, dim=-1))
        output: Tensor = self.proj(join_heads(F.scaled_dot_product_attention(query, key, value)))
        return output


class EvaBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VisualTokenizerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.encoder_norm_epsilon)
        self.attn = EvaAttention(config.width, config.encoder_heads)
        self.norm2 = nn.LayerNorm(config.width, eps=config.encoder_norm_epsilon)
        self.mlp = FeedForward(config.width, config.mlp_ratio)

    def forward(self, values: Tensor) -> Tensor:
        """[B, N, W] to [B, N, W]."""
        values = values + self.attn(self.norm1(values))
        output: Tensor = values + self.mlp(self.norm2(values))
        return output


class PatchEmbed(nn.Module):
    """One vector per square patch, in reading order."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, patches, width]."""
        output: Tensor = self.proj(pixels)
        return output.flatten(2).transpose(1, 2)


class EvaVisionTransformer(nn.Module):
    """Normalised pixels to raw features of the last block; parameter names are the published ones.

    The published ``norm`` and ``head`` are not here: the tokenizer reads the raw block output (NOTES 2.2).
    """

    def __init__(self, config: VisualTokenizerConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.patches + 1, config.width))
        self.patch_embed = PatchEmbed(config.patch_size, config.width)
        self.blocks = nn.ModuleList(EvaBlock(config) for _ in range(config.encoder_depth))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """Float [B, 3, image_size, image_size] to [B, 1 + patches, width]; row 0 is the class token."""
        patches = self.patch_embed(pixels)
        first = self.cls_token.to(patches.dtype).expand(len(patches), -1, -1)
        values = torch.cat([first, patches], dim=1) + self.pos_embed
        for block in self.blocks:
            values = block(values)
        return values
