"""Drawings of one meaning by different sets that share their lines: what one set's way makes of another's drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from pigeon_cli.models.outlines import outlines
from pigeon_cli.training.data.dataset import IconDataset, IconRecord

ALIKE: Final = 0.45
"""Least agreement of two outlines. From there on pairs are one drawing in two finishes by eye, among other families'
too; a set's finishes of one drawing have 0.7 as a median."""
AT_ONCE: Final = 256


def alike_drawings(dataset: IconDataset, records: Sequence[IconRecord]) -> dict[int, list[IconRecord]]:
    """By id of each of ``records``, the train drawings of its meaning with the same lines; twins, which are the same
    picture, left out.
    """
    sources = [other for record in records for other in dataset.train_by_meaning.get(record.meaning, ())]
    both = list({record.id: record for record in (*records, *sources)}.values())
    found = dict(zip((record.id for record in both), outlines_of(dataset, both), strict=True)) if both else {}
    return {record.id: _alike(record, dataset.train_by_meaning.get(record.meaning, ()), found) for record in records}


def outlines_of(dataset: IconDataset, records: Sequence[IconRecord]) -> Tensor:
    """:func:`pigeon_cli.models.outlines.outlines` of plain drawings, [records, N]."""
    found = []
    for start in range(0, len(records), AT_ONCE):
        stacked = np.stack([dataset.images[record.id] for record in records[start : start + AT_ONCE]])
        rgba = torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255
        found.append(outlines(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]))
    return torch.cat(found)


def _alike(record: IconRecord, members: Sequence[IconRecord], found: Mapping[int, Tensor]) -> list[IconRecord]:
    others = [other for other in members if other.twins != record.twins]
    return [other for other in others if float(found[other.id] @ found[record.id]) >= ALIKE]
