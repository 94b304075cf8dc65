"""What stands in for a drawing that a hand lacks: its drawing of another thing, found by analogy.

Two things that other hands draw alike are drawn alike by this hand too. How like is foretold from what is known of both
without the lacking drawing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.pipeline.recall import TAG_SHARE
from pigeon_cli.pipeline.words import split_words
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.alike import AT_ONCE
from pigeon_cli.training.data.dataset import IconRecord
from pigeon_cli.training.data.looks import PLAIN, apply_look

WEIGHTS: Final = (0.34, 0.25, 0.35, 0.32, 0.2, 0.06)
"""Of six agreements of two things: lines and colours of their drawings by the same other hands; lines and colours of
what others make of the one with what this hand makes of the other; words; being of one subgroup. Fitted by least
squares on 3,000 train drawings, each left out and foretold from the others, to the mean of the agreements of lines and
of colours (correlation 0.8)."""
OFFSET: Final = -0.08
COLOUR_SIDE: Final = 16
"""At which colours are compared: a drawing's mass, not its lines."""
SIGNS: Final = frozenset({"symbols", ""})
"""Groups of which nothing stands in for anything: of a letter or an arrow the smallest difference is the meaning."""
RELATED: Final = 0.1
"""Least cosine of the words of things that stand in for one another, if they are not of one subgroup: what merely looks
alike, a crescent and a yin yang, does not."""
LEAST_KINSHIP: Final = 0.05
"""What a hand's drawings count at least; else as much as the two hands draw the same lines."""
TINY: Final = 1e-6


class DrawnThings:
    """Lines, colours and words of train drawings, by things and hands."""

    def __init__(
        self, batches: IconBatches, records: Sequence[IconRecord], lines: Tensor, hands: Sequence[str]
    ) -> None:
        """``lines`` [records, N]: outlines of the records."""
        self.things = sorted({record.meaning for record in records})
        numbers = {thing: number for number, thing in enumerate(self.things)}
        places = torch.tensor([(numbers[record.meaning], hands.index(record.set)) for record in records])
        self.present = torch.zeros(len(self.things), len(hands), dtype=torch.bool)
        self.present[places[:, 0], places[:, 1]] = True
        self.lines, self.colours = (self._placed(each, places) for each in (lines, _colours(batches, records)))
        known = {record.meaning: record for record in reversed(records)}
        names = [known[thing] for thing in self.things]
        self.words, self.subgroups = _word_cosines(names), _same_subgroup(names)
        self.pictures = torch.tensor([name.group not in SIGNS for name in names])

    def foretell(self, hand: int, kin: Tensor) -> Tensor:
        """How like this hand's drawings of two things should be, [things, things]; of the hand itself only the second
        drawing is looked at. ``kin``: :func:`pigeon_cli.training.memory.kinship`.
        """
        others = [other for other in range(len(kin)) if other != hand]
        counts = kin[hand, others].clamp_min(LEAST_KINSHIP)
        there = self.present[:, others] * counts.sqrt()
        both, alone = there @ there.T, (there**2).sum(1, keepdim=True)
        agreements = [
            *(_weighted(each[:, others], each[:, others], counts) / both.clamp_min(TINY) for each in self._seen),
            *(_weighted(each[:, others], each[:, [hand]], counts) / alone.clamp_min(TINY) for each in self._seen),
            self.words,
            self.subgroups,
        ]
        return torch.stack(agreements, dim=-1) @ torch.tensor(WEIGHTS) + OFFSET

    @property
    def related(self) -> Tensor:
        """Bool [things, things]: whether one may stand in for the other."""
        return ((self.subgroups > 0) | (self.words > RELATED)) & self.pictures & self.pictures.unsqueeze(1)

    @property
    def _seen(self) -> tuple[Tensor, Tensor]:
        return self.lines, self.colours

    def _placed(self, values: Tensor, places: Tensor) -> Tensor:
        """Unit vectors [things, hands, N] without what a hand's drawings share; zero where there is no drawing."""
        placed = values.new_zeros(*self.present.shape, values.shape[1])
        for hand in places[:, 1].unique().tolist():
            own = places[:, 1] == hand
            placed[places[own, 0], hand] = functional.normalize(values[own] - values[own].mean(0), dim=1)
        return placed


def substitutes(drawn: DrawnThings, kin: Tensor, lacking: Tensor, least: float = 0.0) -> tuple[Tensor, Tensor]:
    """Which thing's true drawing by a hand stands in best for what is ``lacking`` (bool [things, hands]), where it
    should be more like it than ``least``: numbers int64 [substitutes, 3] of the lacking thing, the hand and the other
    thing; and how like the lacking one it should be, float up to 1 [substitutes].
    """
    entries, likeness = [], []
    for hand in range(lacking.shape[1]):
        can = drawn.present[:, hand] & drawn.related
        foretold = drawn.foretell(hand, kin).masked_fill(~can, -1.0).fill_diagonal_(-1.0)
        values, others = foretold.max(1)
        rows = (lacking[:, hand] & (values > max(0.0, least))).nonzero()[:, 0]
        entries.append(torch.stack([rows, torch.full_like(rows, hand), others[rows]], dim=1))
        likeness.append(values[rows].clamp(max=1))
    return torch.cat(entries), torch.cat(likeness)


def _weighted(one: Tensor, other: Tensor, counts: Tensor) -> Tensor:
    """Dot products [things, things] of [things, hands, N] and [things, hands or 1, N], by hands with their counts."""
    scaled = one * counts[:, None]
    if other.shape[1] == 1:
        return scaled.sum(1) @ other[:, 0].T
    return scaled.flatten(1) @ other.flatten(1).T


def _colours(batches: IconBatches, records: Sequence[IconRecord]) -> Tensor:
    """[records, 3 * COLOUR_SIDE^2]."""
    parts = []
    for start in range(0, len(records), AT_ONCE):
        pictures = apply_look(PLAIN, batches.rgba(list(records[start : start + AT_ONCE])))
        parts.append(functional.adaptive_avg_pool2d(pictures, COLOUR_SIDE).flatten(1).cpu())
    return torch.cat(parts)


def _word_cosines(names: Sequence[IconRecord]) -> Tensor:
    """Cosines [things, things] of labels and tags, rare words counting more."""
    weights = [
        {word: TAG_SHARE for tag in name.tags for word in split_words(tag)}
        | {word: 1.0 for word in split_words(name.label)}
        for name in names
    ]
    found = Counter(word for one in weights for word in one)
    columns = {word: column for column, word in enumerate(found)}
    vectors = torch.zeros(len(weights), max(1, len(columns)))
    for row, one in enumerate(weights):
        for word, weight in one.items():
            vectors[row, columns[word]] = weight * math.log(1 + len(weights) / found[word])
    vectors = functional.normalize(vectors, dim=1)
    return vectors @ vectors.T


def _same_subgroup(names: Sequence[IconRecord]) -> Tensor:
    """Float [things, things]: 1 or 0."""
    kinds = sorted({name.subgroup for name in names})
    numbers = torch.tensor([kinds.index(name.subgroup) for name in names])
    return (numbers.unsqueeze(1) == numbers).float()
