"""Pictures that tokenizer and image generator learn style from: one drawn with the style tokens of another.

What a picture's patches say is taken from the picture itself, from its plain drawing, from a drawing of another set
with the same lines, or from the same meaning in any other family; what its style tokens say, from another picture of
the same set under the same look. So the style tokens come to hold what pictures of one taste share, and the decoder
learns to carry patches from one taste to another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.alike import alike_drawings
from pigeon_cli.training.data.dataset import IconRecord, grouped
from pigeon_cli.training.data.looks import PLAIN, Look, apply_looks, draw_look, geometry_of
from pigeon_cli.training.data.sets import ICON_SETS

PICTURES_A_LOOK = 2
REMEMBERED_SHARE = 0.5
SOURCES = ("own", "plain", "alike", "kin", "foreign")


@dataclass(frozen=True)
class SourceShares:
    """Where the patches come from: the picture itself, its plain drawing, another set's drawing with the same lines,
    another finish of it by the same hand (the plain one where there is none), else the meaning in another family; and
    how often the style tokens are the picture's own."""

    own: float
    plain: float
    own_style: float
    alike: float = 0.0
    kin: float = 0.0
    plain_looks: float = 0.0
    """How often nothing is worn, so that a picture shows its set's finish alone."""


@dataclass(frozen=True)
class Restyled:
    """A batch: float pictures [B, 3, H, W] in 0..1."""

    wanted: Tensor
    sources: Tensor
    """What the patches are read from; rows of ``own`` are the wanted pictures."""
    records: Sequence[IconRecord]
    """What the wanted pictures are of."""
    shapes: Sequence[Look]
    """What of their looks moves them."""
    own: Tensor
    """Bool [B]."""
    foreign: Tensor
    """Bool [B]: the source is of another family, so that the wanted picture cannot be known from it alone."""
    style_rows: Tensor
    """int64 [B]: of which wanted picture the style tokens are read."""


class Restyler:
    """Draws such batches from records of one split; references are found among the train cells only.

    ``remembered`` makes of plain pictures [n, 3, H, W] what a model draws of them that knows their codes by heart; half
    of the other finishes are seen so.
    """

    def __init__(
        self,
        batches: IconBatches,
        records: Sequence[IconRecord] | None = None,
        remembered: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.batches, self.remembered = batches, remembered
        self.by_set = batches.dataset.train_by_set if records is None else grouped(records, "set")
        self.by_meaning = batches.dataset.train_by_meaning

    @cached_property
    def alike(self) -> dict[int, list[IconRecord]]:
        """By id, train drawings of the same meaning with the same lines."""
        return alike_drawings(self.batches.dataset, [record for members in self.by_set.values() for record in members])

    def draw(self, rng: random.Random, count: int, shares: SourceShares, together: int = PICTURES_A_LOOK) -> Restyled:
        """``count`` pictures, ``together`` under each look but for the last, which takes what is left."""
        records: list[IconRecord] = []
        looks: list[Look] = []
        style_rows: list[int] = []
        while len(records) < count:
            group = self._group(rng, min(together, count - len(records)))
            start, size = len(records), len(group)
            worn = draw_look(rng, monochrome=ICON_SETS[group[0].set].monochrome)
            look = PLAIN if rng.random() < shares.plain_looks else worn
            for place in range(size):
                step = 0 if rng.random() < shares.own_style else 1
                style_rows.append(start + (place + step) % size)
            records += group
            looks += [look] * size
        sources, own, kin = self._sources(rng, records, shares)
        wanted = apply_looks(looks, self.batches.rgba(records))
        shapes = [geometry_of(look) for look in looks]
        shown = wanted.clone()
        others = [row for row, is_own in enumerate(own) if not is_own]
        if others:
            moved = [shapes[row] for row in others]
            drawings = self.batches.rgba([sources[row] for row in others])
            if self.remembered is not None:
                known = [place for place, row in enumerate(others) if kin[row] and rng.random() < REMEMBERED_SHARE]
                if known:
                    plain = apply_looks([PLAIN] * len(known), drawings[known])
                    drawings[known] = functional.pad(self.remembered(plain), (0, 0, 0, 0, 0, 1), value=1.0)
            shown[others] = apply_looks(moved, drawings)
        foreign = [one.family != other.family for one, other in zip(sources, records, strict=True)]
        return Restyled(
            wanted, shown, records, shapes, torch.tensor(own), torch.tensor(foreign), torch.tensor(style_rows)
        )

    def plain(self, batch: Restyled, rows: Tensor) -> Tensor:
        """Plain drawings [n, 3, H, W] of what is wanted in the ``rows`` (bool [B]), where their looks put them."""
        chosen = rows.nonzero()[:, 0].tolist()
        return apply_looks(
            [batch.shapes[row] for row in chosen], self.batches.rgba([batch.records[row] for row in chosen])
        )

    def _group(self, rng: random.Random, count: int) -> list[IconRecord]:
        names = list(self.by_set)
        members = self.by_set[rng.choices(names, [len(self.by_set[name]) for name in names])[0]]
        return rng.sample(members, count) if count <= len(members) else rng.choices(members, k=count)

    def _sources(
        self, rng: random.Random, records: Sequence[IconRecord], shares: SourceShares
    ) -> tuple[list[IconRecord], list[bool], list[bool]]:
        """The drawing that each of ``records`` is drawn from, and which are the picture itself and other finishes."""
        sources, own, kin = [], [], []
        listed = shares.own, shares.plain, shares.alike, shares.kin
        kinds = rng.choices(SOURCES, [*listed, max(0.0, 1 - sum(listed))], k=len(records))
        for record, kind in zip(records, kinds, strict=True):
            members = self.by_meaning.get(record.meaning, ())
            others: Sequence[IconRecord] = ()
            if kind == "alike":
                others = self.alike.get(record.id, ())
            elif kind == "kin":
                others = [other for other in members if other.family == record.family and other.set != record.set]
            elif kind == "foreign":
                others = [other for other in members if other.family != record.family]
            sources.append(rng.choice(others) if others else record)
            own.append(kind == "own")
            kin.append(kind == "kin" and bool(others))
        return sources, own, kin
