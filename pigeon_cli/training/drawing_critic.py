"""Tells pictures that a hand drew from those that were foretold: what the stage ``foretell`` is to learn hardness from.

A network that answers with the middle of what is likely draws smears; one that must also pass for the hand decides
(Isola et al., *Image-to-Image Translation with Conditional Adversarial Networks*, 2017). A network of training alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

WIDTH: Final = 48
"""Channels at the whole size of the pictures; below it twice, and from a quarter on four times as many."""
HALVINGS, JUDGED = 4, 3
"""How often the size is halved, and after how many of the last of them it is judged."""
SLOPE: Final = 0.2


class DrawingCritic(nn.Module):
    """Judges pictures place by place at three sizes, by whose hand they should be and how they were changed."""

    def __init__(self, hands: int, variants: int) -> None:
        """``variants``: in how many ways pictures may have been recoloured or turned over."""
        super().__init__()
        widths = [WIDTH, 2 * WIDTH, *[4 * WIDTH] * (HALVINGS - 1)]
        judged = widths[-JUDGED:]
        self.reads = spectral_norm(nn.Conv2d(3, WIDTH, 3, padding=1))
        self.halves = nn.ModuleList(_Half(widths[n], widths[n + 1]) for n in range(HALVINGS))
        self.says = nn.ModuleList(spectral_norm(nn.Conv2d(each, 1, 3, padding=1)) for each in judged)
        self.hands = nn.ModuleList(spectral_norm(nn.Embedding(hands, each)) for each in judged)
        self.variants = nn.ModuleList(spectral_norm(nn.Embedding(variants, each)) for each in judged)

    def forward(self, pictures: Tensor, hands: Tensor, variants: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Pictures [B, 3, S, S] in -1..1, int64 [B] both others; float32 verdicts [B, 1, s, s] of every judged size,
        higher where they pass for drawn, and the features after every halving."""
        values, features, verdicts = self.reads(pictures), [], []
        for half in self.halves:
            values = half(values)
            features.append(values)
        for number, each in enumerate(features[-JUDGED:]):
            told = self.hands[number](hands) + self.variants[number](variants)
            lit = functional.leaky_relu(each, SLOPE)
            match = (lit * told[:, :, None, None].to(lit.dtype)).sum(1, keepdim=True)
            verdicts.append((self.says[number](lit) + match).float())
        return verdicts, features


class _Half(nn.Module):
    def __init__(self, width: int, wider: int) -> None:
        super().__init__()
        self.conv0 = spectral_norm(nn.Conv2d(width, wider, 3, padding=1))
        self.conv1 = spectral_norm(nn.Conv2d(wider, wider, 4, stride=2, padding=1))
        self.passes = spectral_norm(nn.Conv2d(width, wider, 1))

    def forward(self, values: Tensor) -> Tensor:
        """[B, width, s, s] to [B, wider, s / 2, s / 2]."""
        inner = self.conv0(functional.leaky_relu(values, SLOPE))
        total: Tensor = self.conv1(functional.leaky_relu(inner, SLOPE)) + self.passes(functional.avg_pool2d(values, 2))
        return total * 2**-0.5


def critic_loss(drawn: Sequence[Tensor], foretold: Sequence[Tensor]) -> Tensor:
    """Hinge: verdicts on what is ``drawn`` should be above 1, on what was ``foretold`` below -1."""
    parts = [
        functional.relu(1 - real).mean() + functional.relu(1 + made).mean()
        for real, made in zip(drawn, foretold, strict=True)
    ]
    return torch.stack(parts).mean()


def passing_loss(foretold: Sequence[Tensor]) -> Tensor:
    """The less, the more what was ``foretold`` passes for drawn."""
    return -torch.stack([verdict.mean() for verdict in foretold]).mean()


def feature_loss(drawn: Sequence[Tensor], foretold: Sequence[Tensor]) -> Tensor:
    """How far features of foretold pictures are from those of the drawn ones, as a share of these (Wang et al.,
    *High-Resolution Image Synthesis with Conditional GANs*, 2018)."""
    parts = [
        (made.float() - real.float()).abs().mean() / real.float().abs().mean().clamp_min(1e-6)
        for real, made in zip(drawn, foretold, strict=True)
    ]
    return torch.stack(parts).mean()
