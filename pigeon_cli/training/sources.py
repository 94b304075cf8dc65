"""What a picture is drawn from in training: itself, its plain drawing, or another set's drawing of the same thing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pigeon_cli.training.data.alike import alike_drawings
from pigeon_cli.training.data.dataset import IconDataset, IconRecord

KINDS = ("own", "plain", "alike", "kin", "foreign")
FOREIGN_INSTEAD = 0.7
"""Where there is no drawing with the same lines or by the same hand, this share takes any other family's."""


@dataclass(frozen=True)
class SourceShares:
    """How often a picture is drawn from itself, from its plain drawing, from another set's drawing with the same lines,
    and from another finish of it by the same hand; else from the meaning in another family, and where there is none
    from its plain drawing."""

    own: float
    plain: float
    alike: float = 0.0
    kin: float = 0.0


class SourceChooser:
    """Chooses them among train drawings only, for ``records`` of any split."""

    def __init__(self, dataset: IconDataset, records: Sequence[IconRecord]) -> None:
        self.dataset, self.records = dataset, records

    @cached_property
    def alike(self) -> dict[int, list[IconRecord]]:
        """By id, train drawings of the same meaning with the same lines."""
        return alike_drawings(self.dataset, self.records)

    def choose(self, rng: random.Random, record: IconRecord, shares: SourceShares) -> tuple[IconRecord, bool]:
        """The drawing that ``record`` is drawn from, and whether the picture itself is, whatever it wears."""
        listed = shares.own, shares.plain, shares.alike, shares.kin
        kind = rng.choices(KINDS, [*listed, max(0.0, 1 - sum(listed))])[0]
        found: Sequence[IconRecord] = ()
        if kind == "alike":
            found = self.alike[record.id]
        elif kind == "kin":
            found = [other for other in self._others(record, same_family=True) if other.set != record.set]
        if kind == "foreign" or (kind in ("alike", "kin") and not found and rng.random() < FOREIGN_INSTEAD):
            found = self._others(record, same_family=False)
        return (rng.choice(found) if found else record), kind == "own"

    def _others(self, record: IconRecord, same_family: bool) -> list[IconRecord]:
        members = self.dataset.train_by_meaning.get(record.meaning, ())
        return [other for other in members if (other.family == record.family) == same_family]
