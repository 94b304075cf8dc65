"""Who may see which cell: train, valid, test or unseen, by rule and never by chance (DESIGN.md section 3)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

SPLITS = ("train", "valid", "test", "unseen")
"""From weakest to strongest: a group of twins takes the strongest split among its members."""


def is_unseen(meaning: str) -> bool:
    """True for one meaning in twenty: all its styles stay out of every training stage."""
    return zlib.crc32(meaning.encode()) % 20 == 0


def rule_split(meaning: str, style: str) -> str:
    """Split of the cell (meaning, style) by itself, before twins; ``style`` is the npm set's name."""
    if is_unseen(meaning):
        return "unseen"
    return {0: "test", 1: "valid"}.get(zlib.crc32(f"{meaning}/{style}".encode()) % 10, "train")


def assign_splits(
    cells: Sequence[tuple[str, str]], groups: Sequence[int], synonyms: Iterable[tuple[str, str]] = ()
) -> list[str]:
    """Split of every (meaning, style) of ``cells``, whose twins carry the same number in ``groups``.

    A meaning that a set gives as another name of an unseen one (``synonyms``) is unseen as well.
    """
    pairs = list(synonyms)
    unseen = {meaning for meaning, _ in cells if is_unseen(meaning)}
    unseen |= {b for pair in pairs for a, b in (pair, pair[::-1]) if is_unseen(a)}
    strongest: dict[int, int] = {}
    for (meaning, style), group in zip(cells, groups, strict=True):
        rank = SPLITS.index("unseen" if meaning in unseen else rule_split(meaning, style))
        strongest[group] = max(strongest.get(group, 0), rank)
    return [SPLITS[strongest[group]] for group in groups]
