"""What a reference's places become in another style, place by place (``mini``; released weights have no translator).

How a taste draws a meaning is not told by the codes of another drawing of it: a small language model that finds it code
by code, each from those before, hardly looks at the reference. The translator looks at all places of the reference at
once, and what it makes of each is added to the token from which the answer's code there is predicted
(:mod:`pigeon_cli.pipeline.reference`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pigeon_cli.core.configs import TranslatorConfig
from pigeon_cli.models.blocks import FeedForward, SelfAttention


class TranslatorBlock(nn.Module):
    """Self-attention over all places, then feed-forward; pre-norm."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.norm0 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.self_attn = SelfAttention(config.width, config.heads)
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = FeedForward(config.width, config.mlp_ratio)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, N, W] to [B, N, W]."""
        rows = rows + self.dropout(self.self_attn(self.norm0(rows)))
        output: Tensor = rows + self.dropout(self.mlp(self.norm1(rows)))
        return output


class Translator(nn.Module):
    """Places of a reference under the style of a history; the blocks are passed ``passes`` times."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.config = config
        self.reads = nn.Sequential(
            nn.Linear(config.code_width, config.width), nn.GELU(), nn.Linear(config.width, config.width)
        )
        self.hidden = nn.Parameter(torch.randn(config.width) * 0.02)
        self.places = nn.Parameter(torch.randn(config.places, config.width) * 0.1)
        self.style = nn.Sequential(
            nn.Linear(config.style_tokens * config.code_width, config.width),
            nn.GELU(),
            nn.Linear(config.width, 2 * config.width),
        )
        self.blocks = nn.ModuleList(TranslatorBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, vectors: Tensor, keep: Tensor, style: Tensor) -> Tensor:
        """What each place becomes, [B, places, width].

        ``vectors`` [B, L, code_width] are those of the reference's patches in reading order, ``keep`` [B, L] is 0 where
        one is hidden and may carry a gradient; a picture with fewer patches than places has the rest hidden. ``style``
        [B, style tokens, code_width]: mean vectors of the history's style tokens.
        """
        missing = self.config.places - vectors.shape[1]
        kept = F.pad(keep, (0, missing)).unsqueeze(-1).to(vectors.dtype)
        read = self.reads(F.pad(vectors, (0, 0, 0, missing)))
        shift, told = self.style(style.flatten(1)).unsqueeze(1).chunk(2, dim=-1)
        rows = torch.cat([read * kept + self.hidden * (1 - kept) + self.places + shift, told], dim=1)
        for _ in range(self.config.passes):
            for block in self.blocks:
                rows = block(rows)
        output: Tensor = self.norm(rows[:, :-1])
        return output
