"""Which pictures of a batch are the history of which: the others of its group, fewer at times, and strangers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pigeon_cli.training.looked_groups import GROUP

FULL_SHARE = 0.55
"""Of histories as long as can be; others are of any length."""
NONE_SHARE = 0.06
STRANGER_SHARE = 0.03
"""Of liked pictures of another group: a history may hold what is not of its taste."""
HIDDEN_SHARE = 0.6
"""Of strangers that are hidden, as a mask is to hide them."""


@dataclass(frozen=True)
class GroupHistories:
    """Histories of up to N pictures for each of B pictures, whose groups stand one after another."""

    rows: Tensor
    """int64 [B, N]: which pictures, whether seen or not."""
    seen: Tensor
    """Bool [B, N]."""
    strangers: Tensor
    """Bool [B, N]: of another group."""

    def mean(self, values: Tensor) -> Tensor:
        """The mean [B, ...] of what the seen pictures have of values [B, ...]; zero where none is seen."""
        shares = self.seen.float() / self.seen.sum(1, keepdim=True).clamp_min(1)
        # Plain products: an einsum would round to bf16 in training, and not at generation.
        return (values[self.rows] * shares.reshape(*shares.shape, *[1] * (values.ndim - 1))).sum(1)


def draw_histories(groups: int, most: int, device: torch.device) -> GroupHistories:
    """Histories in training, of at most ``most`` pictures; nobody's holds the picture itself."""
    count = groups * GROUP
    itself = torch.eye(GROUP, device=device).repeat(groups, 1)
    others = (torch.rand(count, GROUP, device=device) + itself).argsort(-1)[:, :most]
    start = torch.arange(groups, device=device).repeat_interleave(GROUP).unsqueeze(1) * GROUP
    length = torch.randint(1, most + 1, (count, 1), device=device)
    length = length.masked_fill(torch.rand(count, 1, device=device) < FULL_SHARE, most)
    length = length.masked_fill(torch.rand(count, 1, device=device) < NONE_SHARE, 0)
    strangers = torch.rand(count, most, device=device) < STRANGER_SHARE
    hidden = strangers & (torch.rand(count, most, device=device) < HIDDEN_SHARE)
    rows = start + others
    if groups == 1:
        strangers, hidden = torch.zeros_like(strangers), torch.zeros_like(hidden)
    else:
        away = torch.randint(GROUP, count, (count, most), device=device)
        rows = torch.where(strangers, (start + away) % count, rows)
    seen = (torch.arange(most, device=device) < length) & ~hidden
    return GroupHistories(rows, seen, strangers)


def whole_histories(groups: int, most: int, device: torch.device) -> GroupHistories:
    """Those of evaluation: the pictures after each in its group, from the first again after the last, all seen."""
    count = groups * GROUP
    rows = torch.arange(count, device=device).unsqueeze(1)
    places = (rows % GROUP + torch.arange(1, most + 1, device=device)) % GROUP
    rows = rows - rows % GROUP + places
    return GroupHistories(rows, torch.ones_like(rows, dtype=torch.bool), torch.zeros_like(rows, dtype=torch.bool))
