"""Attention and feed-forward layers that the vision modules share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDING_LOGIT = -10000.0
"""Added to the logits of hidden keys in the published decoders."""


def split_heads(values: Tensor, heads: int) -> Tensor:
    """[B, N, W] to [B, heads, N, W / heads]."""
    batch, rows, width = values.shape
    return values.reshape(batch, rows, heads, width // heads).transpose(1, 2)


def join_heads(values: Tensor) -> Tensor:
    """[B, heads, N, D] to [B, N, heads * D]."""
    return values.transpose(1, 2).flatten(2)


def policy_attention(query: Tensor, key: Tensor, value: Tensor, policy: Tensor, epsilon: float) -> Tensor:
    """Softmax attention whose weights are multiplied by ``policy`` before they are normalised.

    ``query`` [B, H, Q, D], ``key`` and ``value`` [B, H, K, D], ``policy`` broadcasts to [B, H, Q, K] and may
    carry a gradient, also where it is 0. ``epsilon / K`` is added to every weight and ``epsilon`` to their sum, and
    the largest logit is taken before the policy (NOTES 2.4), so with nothing allowed the result is the mean value.
    The weights are computed in float32 whatever the autocast type.
    """
    logits = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).float()
    weights = (logits - logits.amax(-1, keepdim=True).detach()).exp() * policy
    total = weights.sum(-1, keepdim=True) + epsilon
    weights = (weights + epsilon / key.shape[-2]) / total.clamp(min=torch.finfo(torch.float32).tiny)
    mixed: Tensor = weights.to(value.dtype) @ value
    return mixed


def hiding_bias(mask: Tensor, query: Tensor) -> Tensor:
    """Bool [B, K] to an additive bias [B, 1, Q, K] of the type of ``query`` [B, H, Q, D].

    Finite, as recorded: beside a visible key the weight is exactly 0, and a row with nothing to see attends to its
    hidden slots by their own logits instead of becoming NaN.
    """
    bias = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill(~mask, HIDING_LOGIT)
    return bias[:, None, None, :].expand(-1, -1, query.shape[2], -1)


class FeedForward(nn.Module):
    """Linear, exact GELU, Linear on [..., width]; hidden width is ``int(width * ratio)``."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, int(width * ratio))
        self.fc2 = nn.Linear(int(width * ratio), width)

    def forward(self, values: Tensor) -> Tensor:
        """Same shape as ``values``."""
        output: Tensor = self.fc2(F.gelu(self.fc1(values)))
        return output


class SelfAttention(nn.Module):
    """Multi-head self-attention with one joint projection; plain softmax unless a policy is given."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, values: Tensor, policy: Tensor | None = None, epsilon: float = 0.0) -> Tensor:
        """[B, N, W] to [B, N, W]; ``policy`` and ``epsilon`` as in :func:`policy_attention`."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(values).chunk(3, dim=-1))
        if policy is None:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            mixed = policy_attention(query, key, value, policy, epsilon)
        output: Tensor = self.proj(join_heads(mixed))
        return output


class CrossAttention(nn.Module):
    """Multi-head attention from [B, Q, W] to [B, K, W]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        values: Tensor,
        context: Tensor,
        mask: Tensor | None = None,
        policy: Tensor | None = None,
        epsilon: float = 0.0,
    ) -> Tensor:
        """Result [B, Q, W].

        ``mask`` bool [B, K] hides keys where it is false; a row that may see no key sees them all.
        ``policy`` and ``epsilon`` (then ``mask`` is unused) as in :func:`policy_attention`. Without any key the
        attended value is zero (NOTES 2.15).
        """
        query = split_heads(self.query(values), self.heads)
        key = split_heads(self.key(context), self.heads)
        value = split_heads(self.value(context), self.heads)
        if context.shape[1] == 0:
            mixed = torch.zeros_like(query)
        elif policy is not None:
            mixed = policy_attention(query, key, value, policy, epsilon)
        else:
            bias = None if mask is None else hiding_bias(mask, query)
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        output: Tensor = self.proj(join_heads(mixed))
        return output
