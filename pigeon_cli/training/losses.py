"""Losses of both stages as pure functions of logits and labels (DESIGN.md section 2, stages 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

ROWS_AT_ONCE = 256
"""Rows of logits in float32 at a time: they stay in a processor's cache."""
IGNORED = -100
"""Label without a loss, as in ``pipeline.prompt``."""


@dataclass(frozen=True)
class NearCodes:
    """Codes that look like a code: part of a label's weight goes to them, because near-synonyms are no mistakes."""

    table: Tensor
    """int64 [code_count, k]: the nearest codes of every code, itself left out."""
    first_code: int
    """Column of code 0 in the logits."""
    label_share: float = 0.9
    """Weight that stays on the label; the rest is spread evenly over the k codes."""

    def soft_targets(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Columns int64 [N, 1 + k], the label first, and their weights [N, 1 + k]; only codes share with others."""
        table = self.table.to(labels.device)
        codes = labels - self.first_code
        is_code = ((codes >= 0) & (codes < len(table))).float().unsqueeze(1)
        neighbours = table[codes.clamp(0, len(table) - 1)] + self.first_code
        shared = (1 - self.label_share) * is_code
        spread = (shared / table.shape[1]).expand(neighbours.shape)
        return torch.cat([labels.unsqueeze(1), neighbours], dim=1), torch.cat([1 - shared, spread], dim=1)


def nearest_codes(codebook: Tensor, count: int = 8) -> Tensor:
    """The ``count`` nearest rows by cosine for every row of ``codebook`` [n, w], int64 [n, count]."""
    unit = functional.normalize(codebook.float(), dim=-1)
    similarity = unit @ unit.T
    return similarity.fill_diagonal_(float("-inf")).topk(count, dim=1).indices


def reconstruction_loss(logits: Tensor, labels: Tensor, near: NearCodes | None = None) -> Tensor:
    """Mean cross-entropy over all labelled tokens of the batch (stage 1), a scalar.

    ``logits`` [B, L, V] at a place predict the next token; ``labels`` int64 [B, L], ``IGNORED`` without a loss.
    With ``near``, visual codes are soft targets; other ids, the image end among them, stay hard.
    """
    predicted, wanted = labelled(logits, labels)
    if wanted.numel() == 0:
        return logits.sum() * 0.0
    if near is None:
        return functional.cross_entropy(predicted.float(), wanted)
    soft, _ = soft_cross_entropy(predicted, wanted, near)
    return soft.mean()


def soft_cross_entropy(logits: Tensor, labels: Tensor, near: NearCodes) -> tuple[Tensor, Tensor]:
    """Losses [N] of ``logits`` [N, V] against soft targets of ``labels`` int64 [N], and those of the labels alone."""
    losses: tuple[Tensor, Tensor] = SoftCrossEntropy.apply(logits, *near.soft_targets(labels))
    return losses


class SoftCrossEntropy(torch.autograd.Function):
    """Cross-entropy per row against a label that shares its weight with near codes, a few rows at a time.

    Autograd's own pass keeps and fills four float32 tensors [N, V], which is a fifth of a training step of ``mini``;
    the values and gradients are the same (``tests/unit/test_losses.py``).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """``logits`` [N, V] in any float type; ``targets`` int64 [N, k], the label first, with ``weights`` [N, k].

        Returns the losses [N] and, without a gradient, those of the label alone [N].
        """
        slope = torch.empty_like(logits)
        soft, hard = (torch.empty(len(logits), dtype=torch.float32, device=logits.device) for _ in range(2))
        for start in range(0, len(logits), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            logs = torch.log_softmax(logits[part].float(), dim=1)
            wanted = logs.gather(1, targets[part])
            soft[part], hard[part] = -(wanted * weights[part]).sum(1), -wanted[:, 0]
            slope[part] = logs.exp_().scatter_add_(1, targets[part], -weights[part])
        ctx.save_for_backward(slope)
        ctx.mark_non_differentiable(hard)
        return soft, hard

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0].unsqueeze(1).to(slope.dtype), None, None


def sequence_log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the log-probabilities of the labelled tokens of each row, [B]; arguments as in the stage-1 loss."""
    shifted = labels[:, 1:]
    mask = shifted != IGNORED
    logs = torch.zeros(shifted.shape, dtype=torch.float32, device=logits.device)
    predicted, wanted = labelled(logits, labels)
    tokens = torch.log_softmax(predicted.float(), dim=-1).gather(1, wanted.unsqueeze(1))[:, 0]
    return logs.masked_scatter(mask, tokens).sum(dim=1)


def labelled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Only what has a label: logits [N, V] and the ids they should predict [N], in reading order."""
    shifted = labels[:, 1:]
    mask = shifted != IGNORED
    return logits[:, :-1][mask], shifted[mask]


@dataclass(frozen=True)
class PreferenceLoss:
    """Direct preference optimisation of each pair, [B] each."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor

    @property
    def mean(self) -> Tensor:
        """The scalar to minimise."""
        return self.losses.mean()


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float = 0.1,
) -> PreferenceLoss:
    """Sigmoid loss on sequence log-probabilities [B] (stage 2): ``-log sigmoid(beta (policy - reference margin))``.

    Equal policy and reference give ln 2.
    """
    chosen = beta * (policy_chosen - reference_chosen)
    rejected = beta * (policy_rejected - reference_rejected)
    return PreferenceLoss(-functional.logsigmoid(chosen - rejected), chosen.detach(), rejected.detach())


def mask_supervision_loss(margin: Tensor, planted: Tensor, scored: Tensor) -> Tensor:
    """Mean binary cross-entropy of "keep" against known noise, a scalar.

    ``margin`` [B, L] are logits of keeping (``MaskDecision.margin``); ``planted`` bool marks tokens that should be
    dropped, ``scored`` bool the tokens that count. Without any scored token the loss is 0.
    """
    if not bool(scored.any()):
        return margin.sum() * 0.0
    return functional.binary_cross_entropy_with_logits(margin[scored], (~planted[scored]).to(margin.dtype))


def contrast(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """Symmetric InfoNCE between unit vectors [B, W] that belong together row by row, a scalar."""
    logits = first @ second.T / temperature
    labels = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2
