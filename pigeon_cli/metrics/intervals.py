"""Means and shares with their 95% intervals; no torch, so that counting votes stays quick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pigeon_cli.core.evaluation import Interval

RESAMPLES: Final = 2000
Z95: Final = 1.959964
"""The normal distribution's 97.5% point."""


def wilson(wins: int, count: int) -> Interval | None:
    """The share ``wins`` of ``count`` with Wilson's interval (Wilson 1927); ``None`` of nothing.

    Raises ``ValueError`` for more wins than there are.
    """
    if not 0 <= wins <= count:
        raise ValueError(f"{wins} wins of {count}")
    if not count:
        return None
    share, square = wins / count, Z95**2 / count
    centre = (share + square / 2) / (1 + square)
    half = Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), count)


def bootstrap_mean(values: Sequence[float | None], groups: Sequence[str], seed: int = 0) -> Interval | None:
    """Mean of the values that are there, with the percentile interval of means over resampled groups.

    Groups are drawn with replacement, each with all its values, because values of one group depend on each other.
    ``None`` where there is no value.
    """
    numbers: dict[str, int] = {}
    rows = [
        (numbers.setdefault(group, len(numbers)), v) for v, group in zip(values, groups, strict=True) if v is not None
    ]
    if not rows:
        return None
    places, kept = np.array([place for place, _ in rows]), np.array([value for _, value in rows], dtype=np.float64)
    sums, counts = np.bincount(places, kept), np.bincount(places)
    means = _resampled_means(sums, counts, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(kept.mean()), float(low), float(high), len(kept))


def bootstrap_difference(
    first: Sequence[float | None], second: Sequence[float | None], groups: Sequence[str], seed: int = 0
) -> Interval | None:
    """The paired bootstrap: mean of ``second - first`` over what both have; ``None`` where they share nothing."""
    differences = [
        None if one is None or other is None else other - one for one, other in zip(first, second, strict=True)
    ]
    return bootstrap_mean(differences, groups, seed)


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means [RESAMPLES] of as many groups as there are, drawn with replacement."""
    drawn = rng.integers(0, len(sums), size=(RESAMPLES, len(sums)))
    means: NDArray[np.float64] = sums[drawn].sum(1) / counts[drawn].sum(1)
    return means
