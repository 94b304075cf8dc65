"""Drawings of one meaning by different sets that share their lines: what one set's way makes of another's drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.training.data.dataset import IconDataset, IconRecord

ALIKE: Final = 0.45
"""Least agreement of two outlines. From there on pairs are one drawing in two finishes by eye, among other families'
too; a set's finishes of one drawing have 0.7 as a median."""
SIDE: Final = 24
AT_ONCE: Final = 256
STRONGEST: Final = 6.0
"""Lines count up to so many times the mean: black on white is no more a line than yellow on white."""


def outlines(rgba: Tensor) -> Tensor:
    """Where the lines are of pictures over white: straight alpha in 0..1, [B, 4, S, S], to unit vectors [B, N].

    Thick and thin, coloured and black lines at the same places agree; their dot product is a correlation.
    """
    images = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
    across, down = images.diff(dim=3).abs().mean(1)[:, :-1], images.diff(dim=2).abs().mean(1)[:, :, :-1]
    lines = across + down
    lines = (lines / lines.mean((1, 2), keepdim=True).clamp_min(1e-6)).clamp(max=STRONGEST).unsqueeze(1)
    # A line may lie a little beside the other's.
    pooled = functional.adaptive_avg_pool2d(functional.avg_pool2d(lines, 5, stride=1, padding=2), SIDE).flatten(1)
    return functional.normalize(pooled - pooled.mean(1, keepdim=True), dim=1)


def alike_drawings(dataset: IconDataset, records: Sequence[IconRecord]) -> dict[int, list[IconRecord]]:
    """By id of each of ``records``, the train drawings of its meaning with the same lines; twins, which are the same
    picture, left out.
    """
    sources = [other for record in records for other in dataset.train_by_meaning.get(record.meaning, ())]
    both = list({record.id: record for record in (*records, *sources)}.values())
    parts = [_outlines_of(dataset, both[start : start + AT_ONCE]) for start in range(0, len(both), AT_ONCE)]
    found = dict(zip((record.id for record in both), torch.cat(parts), strict=True)) if both else {}
    return {record.id: _alike(record, dataset.train_by_meaning.get(record.meaning, ()), found) for record in records}


def _outlines_of(dataset: IconDataset, records: Sequence[IconRecord]) -> Tensor:
    images = torch.from_numpy(np.stack([dataset.images[record.id] for record in records]))
    return outlines(images.permute(0, 3, 1, 2).float() / 255)


def _alike(record: IconRecord, members: Sequence[IconRecord], found: Mapping[int, Tensor]) -> list[IconRecord]:
    others = [other for other in members if other.twins != record.twins]
    return [other for other in others if float(found[other.id] @ found[record.id]) >= ALIKE]
