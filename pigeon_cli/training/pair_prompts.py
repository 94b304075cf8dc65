"""Preference pairs as one batch for both policies: the same masked prompt before the chosen and the rejected answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pigeon_cli.models.mask_generator import HISTORY, REFERENCE
from pigeon_cli.pipeline.mask import TokenLayout
from pigeon_cli.pipeline.positions import token_positions
from pigeon_cli.pipeline.prompt import IGNORED, pad_prompts
from pigeon_cli.training.losses import sequence_log_probability
from pigeon_cli.training.pairs import PreferencePair
from pigeon_cli.training.request_prompts import RequestPrompts


@dataclass(frozen=True)
class PreparedPairs:
    """Prompts with answers, left-padded: first all chosen, then all rejected, [2B, L, ...] each."""

    embedded: Tensor
    attention: Tensor
    positions: Tensor
    labels: Tensor

    def log_probabilities(self, language: torch.nn.Module) -> tuple[Tensor, Tensor]:
        """Of the chosen and of the rejected answers, image ends included, [B] each."""
        # Answers stand at the end, so only their logits are computed.
        last = int((self.labels != IGNORED).sum(1).max()) + 1
        logits = language(
            inputs_embeds=self.embedded,
            attention_mask=self.attention,
            position_ids=self.positions,
            use_cache=False,
            logits_to_keep=last,
        ).logits
        chosen, rejected = sequence_log_probability(logits, self.labels[:, -last:]).chunk(2)
        return chosen, rejected


@torch.no_grad()
def prepare_pairs(
    prompts: RequestPrompts, pairs: Sequence[PreferencePair], as_rejected: Sequence[bool]
) -> PreparedPairs:
    """``as_rejected`` says per pair whether the reference is hidden as where the rejected candidate was drawn."""
    requests = [pair.coded() for pair in pairs]
    answers = [pair.chosen.codes for pair in pairs] + [pair.rejected.codes for pair in pairs]
    merged = [prompts.prompt(request, answer) for request, answer in zip(requests * 2, answers, strict=True)]
    batch = pad_prompts(merged, prompts.spec.vocabulary)
    layout = prompts.layout(requests)
    kept = [pair.rejected.kept if other else pair.chosen.kept for pair, other in zip(pairs, as_rejected, strict=True)]
    keep = recorded_keep(layout, [pair.history_kept for pair in pairs], kept)
    twice = TokenLayout(*(torch.cat([part, part]) for part in vars(layout).values()))
    embedded = prompts.embed(batch, twice, torch.cat([keep, keep])).embedded
    ids, attention = batch.ids.to(embedded.device), batch.attention.to(embedded.device)
    positions = token_positions(ids, attention, prompts.spec)
    return PreparedPairs(embedded, attention, positions, batch.labels.to(embedded.device))


def recorded_keep(layout: TokenLayout, history: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> Tensor:
    """Keep values [B, L] of masks that were written down: tokens of each request that stay, counted from 0."""
    keep = torch.ones(layout.types.shape)
    for row, (first, second) in enumerate(zip(history, reference, strict=True)):
        for kind, kept in ((HISTORY, first), (REFERENCE, second)):
            columns = (layout.types[row] == kind).nonzero()[:, 0].cpu()
            keep[row, columns] = 0.0
            keep[row, columns[list(kept)]] = 1.0
    return keep.to(layout.types.device)
