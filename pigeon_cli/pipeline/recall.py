"""Which of the drawings that a model knows by heart is meant by words.

The base model draws references from words alone (DESIGN.md section 2), but what a small one draws so nobody recognises.
Where words name a thing that it was shown in training, that drawing takes the place of the reference's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.pipeline.words import split_words

MEMORY_LIST: Final = "memory.txt"
"""A model folder's drawings, one a line in the order of its weights: the label, a tab, and tags."""
TAG_SHARE: Final = 0.5
"""What a word counts that is a tag of a drawing and not in its label."""
SMALL_WORDS: Final = frozenset(
    split_words("a an and at by for from in is my of on or over some that the this to under with")
)
"""Words that name nothing."""
ENOUGH: Final = 0.5
"""Least share of what was asked for that must be found, by the weight of the known words."""


@dataclass(frozen=True)
class Remembered:
    """How one drawing is called."""

    label: str
    tags: str = ""

    def line(self) -> str:
        """Its line of the list."""
        return f"{self.label}\t{self.tags}"


def remembered(folder: Path) -> tuple[Remembered, ...]:
    """The list of a model folder; raises :class:`WeightsError` where it cannot be read."""
    path = folder / MEMORY_LIST
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read the list {path}: {error}", "reinstall pigeon") from error
    return tuple(Remembered(label, tags) for label, _, tags in (line.partition("\t") for line in lines))


def recall(drawings: Sequence[Remembered], words: str) -> int | None:
    """The number of the drawing that ``words`` ask for, ``None`` where they name none.

    A word weighs the more the fewer drawings have it; words that no drawing has do not count. The best share of the
    asked words wins, and of equals the drawing whose label says least else.
    """
    asked = set(split_words(words)) - SMALL_WORDS
    labels = [set(split_words(one.label)) for one in drawings]
    tags = [set(split_words(one.tags)) - label for one, label in zip(drawings, labels, strict=True)]
    found = Counter(word for label, tag in zip(labels, tags, strict=True) for word in label | tag)
    weight = {word: math.log(1 + len(drawings) / count) for word, count in found.items()}
    total = sum(weight.get(word, 0.0) for word in asked)
    if not total:
        return None

    def share(number: int) -> tuple[float, float]:
        named = sum(weight[word] for word in asked & labels[number])
        tagged = sum(weight[word] for word in asked & tags[number])
        return (named + TAG_SHARE * tagged) / total, named / max(1e-9, sum(weight[word] for word in labels[number]))

    best = max(range(len(drawings)), key=share)
    return best if share(best)[0] >= ENOUGH else None
