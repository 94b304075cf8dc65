"""Drawings in another finish of the same hand, for the memory: what an icon set lacks and a sibling of it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from pigeon_cli.pipeline.recall import NEAR
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.dataset import IconRecord, grouped
from pigeon_cli.training.data.looks import PLAIN, apply_look
from pigeon_cli.training.data.sets import HANDS, ICON_SETS
from pigeon_cli.training.forest_finishes import ForestFinisher, learned_finish


@dataclass
class Finishes:
    """What hands make of siblings' lines, each learned from the train pairs when it is first asked for."""

    batches: IconBatches
    say: Callable[[str], None]
    kin: Tensor
    """[hands, hands]: :func:`pigeon_cli.training.memory.kinship`."""
    learned: dict[int, ForestFinisher] = field(default_factory=dict)

    def __call__(self, pictures: Tensor, hand: int) -> Tensor:
        """Plain pictures [B, 3, S, S] in 0..1 as ``hand`` would finish them, of the same shape."""
        if hand not in self.learned:
            self.learned[hand] = self._learn(hand)
        return self.learned[hand](pictures)

    def _learn(self, hand: int) -> ForestFinisher:
        train = self.batches.train
        pairs = sibling_pairs(train, [record for record in train if record.set == HANDS[hand]], self.kin)
        self.say(f"memory: the finish of {HANDS[hand]} is learned from {len(pairs)} pairs")
        siblings, own = (
            [apply_look(PLAIN, self.batches.rgba([record]))[0] for record in records]
            for records in zip(*pairs, strict=True)
        )
        return learned_finish(HANDS[hand], siblings, own)


def worth_making(hand: int, source: int, kin: Tensor) -> bool:
    """Whether a drawing that ``hand`` lacks is made from one by ``source``: another finish of the same lines.

    ``kin`` [hands, hands]: :func:`pigeon_cli.training.memory.kinship`.
    """
    one, other = ICON_SETS[HANDS[hand]], ICON_SETS[HANDS[source]]
    return hand != source and one.family == other.family and float(kin[hand, source]) >= NEAR


def sibling_pairs(
    sources: Sequence[IconRecord], wanted: Sequence[IconRecord], kin: Tensor
) -> list[tuple[IconRecord, IconRecord]]:
    """Drawings among ``sources`` and ``wanted`` of one thing, of which the second is worth making from the first."""
    by_thing = grouped(sources, "meaning")
    return [
        (source, record)
        for record in wanted
        for source in by_thing.get(record.meaning, ())
        if worth_making(HANDS.index(record.set), HANDS.index(source.set), kin)
    ]
