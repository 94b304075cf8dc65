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
    One group alone has no interval; ``None`` where there is no value.
    """
    known: dict[str, int] = {}
    kept = [
        (known.setdefault(group, len(known)), value)
        for value, group in zip(values, groups, strict=True)
        if value is not None
    ]
    if not kept:
        return None
    places, found = np.array([place for place, _ in kept]), np.array([value for _, value in kept], dtype=np.float64)
    if len(known) < 2:
        return Interval(float(found.mean()), None, None, len(found))
    sums, counts = (np.bincount(places, each).astype(np.float64) for each in (found, np.ones_like(found)))
    means = _resampled_means(sums, counts, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(found.mean()), float(low), float(high), len(found))


def bootstrap_difference(
    first: Sequence[float | None], second: Sequence[float | None], groups: Sequence[str], seed: int = 0
) -> Interval | None:
    """The paired bootstrap: mean of ``second - first`` over what both have; ``None`` where they share nothing."""
    differences = [
        None if one is None or other is None else other - one for one, other in zip(first, second, strict=True)
    ]
    return bootstrap_mean(differences, groups, seed)


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means [RESAMPLES] of as many groups as there are, drawn with replacement."""
    drawn = rng.integers(0, len(sums), size=(RESAMPLES, len(sums)))
    means: NDArray[np.float64] = sums[drawn].sum(1) / counts[drawn].sum(1)
    return means
