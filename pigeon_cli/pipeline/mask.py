"""Which tokens of the history and the reference the language model sees (DESIGN.md, "Making the mask learn")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.errors import UsageError
from pigeon_cli.models.mask_generator import (
    HISTORY,
    PAD,
    REFERENCE,
    Alphas,
    MaskDecision,
    MaskGenerator,
    decide,
    gumbel_noise,
)

MASK_KINDS = ("learned", "similarity", "random", "off")
BEST_MATCHES = 3
"""How many history tokens a reference token is compared with by the similarity mask."""


@dataclass(frozen=True)
class TokenLayout:
    """Codes of each request side by side: all history images in order, then the reference; padded on the right.

    int64 [B, L] each. Columns of the history are numbered as ``MergedPrompt.sources`` counts them.
    """

    ids: Tensor
    positions: Tensor
    """From 1 in every image; 0 on padding."""
    types: Tensor
    images: Tensor
    """1, 2, ... for history images, 0 for the reference and padding."""

    @property
    def lengths(self) -> list[int]:
        """Real columns of each request."""
        return [int(count) for count in (self.types != PAD).sum(1)]


def lay_out(histories: Sequence[Sequence[Sequence[int]]], references: Sequence[Sequence[int]], pad: int) -> TokenLayout:
    """Layout of token ids of codes: per request its history images, and its reference (may be empty)."""
    rows: list[list[tuple[int, int, int, int]]] = []
    for history, reference in zip(histories, references, strict=True):
        row = [
            (token, place, HISTORY, image)
            for image, codes in enumerate(history, start=1)
            for place, token in enumerate(codes, start=1)
        ]
        row += [(token, place, REFERENCE, 0) for place, token in enumerate(reference, start=1)]
        rows.append(row)
    length = max(len(row) for row in rows)
    table = torch.tensor([row + [(pad, 0, PAD, 0)] * (length - len(row)) for row in rows], dtype=torch.int64)
    ids, positions, types, images = table.reshape(len(rows), length, 4).unbind(-1)
    return TokenLayout(ids, positions, types, images)


def choose_mask(
    kind: str,
    layout: TokenLayout,
    history_alpha: Alphas,
    reference_alpha: Alphas,
    *,
    generator: MaskGenerator | None = None,
    embedding: nn.Module | None = None,
    features: Tensor | None = None,
    streams: Sequence[torch.Generator] | None = None,
    invert_reference: bool = False,
) -> MaskDecision:
    """Decide by one of ``MASK_KINDS``; the alphas are shares to drop (:func:`decide`).

    ``learned`` needs ``generator`` and the language model's ``embedding``; ``similarity`` needs ``features``
    [B, L, F], the merger's outputs in the layout's columns; ``random`` needs ``streams``, one CPU generator per
    request. ``streams`` add Gumbel noise to the other two as well. Raises :class:`UsageError` where one is missing.
    """
    if kind == "off":
        zeros = torch.zeros(layout.ids.shape, device=layout.ids.device)
        return MaskDecision(torch.ones_like(zeros), zeros, zeros, zeros)
    temperature: Tensor | float = 1.0
    surrogate_tau = None
    if kind == "learned" and generator is not None and embedding is not None:
        scores = generator(embedding(layout.ids), layout.positions, layout.types, layout.images)
        temperature, surrogate_tau = generator.temperature, generator.config.surrogate_tau
    elif kind == "similarity" and features is not None:
        scores = similarity_scores(features, layout.types)
    elif kind == "random" and streams is not None:
        scores = torch.zeros(layout.ids.shape, device=layout.ids.device)
    else:
        known = kind in MASK_KINDS
        problem = (
            f"the mask {kind!r} cannot run with what this model offers" if known else f"no mask is called {kind!r}"
        )
        raise UsageError(problem, f"choose --mask from {', '.join(MASK_KINDS)}")
    noise = None
    if streams is not None:
        noise = gumbel_noise(layout.lengths, layout.ids.shape[1], streams).to(scores)
    return decide(
        scores,
        layout.types,
        history_alpha,
        reference_alpha,
        invert_reference=invert_reference,
        temperature=temperature,
        surrogate_tau=surrogate_tau,
        noise=noise,
    )


def similarity_scores(features: Tensor, types: Tensor) -> Tensor:
    """Training-free scores [B, L]: how well a token's feature [B, L, F] is matched on the other side.

    A history token scores its best match with any reference token, a reference token the mean of its three best with
    the history; 0 on padding and where the other side is empty. A match is the dot product of unit features after
    their mean over both sides is taken off: DESIGN.md section 2 has cosines, by which paper agrees with paper best of
    all, so that the dial hid the whole drawing before it hid any of the paper around it.
    """
    present = (types != PAD).unsqueeze(-1)
    unit = functional.normalize(features.float(), dim=-1)
    common = (unit * present).sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp_min(1)
    own = unit - common
    matches = own @ own.transpose(1, 2)
    history, reference = types == HISTORY, types == REFERENCE
    with_reference = matches.masked_fill(~reference.unsqueeze(1), float("-inf")).amax(dim=2)
    count = min(BEST_MATCHES, matches.shape[2])
    best = matches.masked_fill(~history.unsqueeze(1), float("-inf")).topk(count, dim=2).values
    found = best.isfinite()
    with_history = best.masked_fill(~found, 0.0).sum(2) / found.sum(2).clamp_min(1)
    scores = torch.where(history, with_reference, torch.where(reference, with_history, torch.zeros_like(with_history)))
    return scores.masked_fill(~scores.isfinite(), 0.0)


def reference_part(layout: TokenLayout, keep: Tensor, repack: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The reference's ids, presence (bool) and keep values, [B, R] each, padded on the right.

    ``repack`` removes dropped tokens and closes the gaps (released weights); otherwise they stay in place with keep 0.
    """
    present = layout.types == REFERENCE
    if repack:
        present = present & (keep > 0)
    width = int(present.sum(1).max())
    columns = (~present).long().argsort(dim=1, stable=True)[:, :width]
    return layout.ids.gather(1, columns), present.gather(1, columns), keep.gather(1, columns)
