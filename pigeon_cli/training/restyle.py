"""Pictures that the tokenizer learns style from: one drawn with the style tokens of another.

What a picture's patches say is taken from the picture itself, from its plain drawing, or from the same meaning in
another family; what its style tokens say, from another picture of the same set under the same look. So the style tokens
come to hold what pictures of one taste share, and the decoder learns to carry patches from one taste to another.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.dataset import IconRecord, grouped
from pigeon_cli.training.data.looks import Look, apply_looks, draw_look, geometry_of
from pigeon_cli.training.data.sets import ICON_SETS
from pigeon_cli.training.sources import SourceChooser, SourceShares

PICTURES_A_LOOK = 2


@dataclass(frozen=True)
class Restyled:
    """A batch: float pictures [B, 3, H, W] in 0..1."""

    wanted: Tensor
    sources: Tensor
    """What the patches are read from: the wanted picture itself, or a drawing in plain colours where its look puts it.
    """
    foreign: Tensor
    """Bool [B]: the source is of another family, so that the wanted picture cannot be known from it alone."""
    style_rows: Tensor
    """int64 [B]: of which wanted picture the style tokens are read."""


class Restyler:
    """Draws such batches from records of one split; sources are found among the train cells only."""

    def __init__(self, batches: IconBatches, records: Sequence[IconRecord] | None = None) -> None:
        self.batches, chosen = batches, batches.train if records is None else records
        self.by_set = grouped(chosen, "set")
        self.sources = SourceChooser(batches.dataset, chosen)

    def draw(self, rng: random.Random, count: int, shares: SourceShares, own_style: float) -> Restyled:
        """``count`` pictures, two under each look but for the last, which takes what is left; style tokens are the
        picture's own in a share ``own_style``."""
        records: list[IconRecord] = []
        looks: list[Look] = []
        style_rows: list[int] = []
        while len(records) < count:
            group = self._group(rng, min(PICTURES_A_LOOK, count - len(records)))
            start, size = len(records), len(group)
            look = draw_look(rng, monochrome=ICON_SETS[group[0].set].monochrome)
            for place in range(size):
                step = 0 if rng.random() < own_style else 1
                style_rows.append(start + (place + step) % size)
            records += group
            looks += [look] * size
        sources, own = zip(*(self.sources.choose(rng, record, shares) for record in records), strict=True)
        worn = [look if is_own else geometry_of(look) for look, is_own in zip(looks, own, strict=True)]
        shown = apply_looks(worn, self.batches.rgba(list(sources)))
        foreign = [one.family != other.family for one, other in zip(sources, records, strict=True)]
        wanted = apply_looks(looks, self.batches.rgba(records))
        return Restyled(wanted, shown, torch.tensor(foreign), torch.tensor(style_rows))

    def _group(self, rng: random.Random, count: int) -> list[IconRecord]:
        names = list(self.by_set)
        members = self.by_set[rng.choices(names, [len(self.by_set[name]) for name in names])[0]]
        return rng.sample(members, count) if count <= len(members) else rng.choices(members, k=count)
