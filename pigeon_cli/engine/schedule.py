"""Which parts of a model are in memory during which stage, for one workload in so many bytes; needs nothing but Python.

Source: issue 4 section 4. Whether a set of parts may be there is asked of each stage alone, and more bytes never forbid
it; so more bytes never lead to more loads, nor to fewer rows in a batch.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, combinations
from typing import Literal


@dataclass(frozen=True)
class Part:
    """A part of a model and its bytes in memory."""

    name: str
    bytes: int
    passing: int = 0
    """Bytes of its files that main memory holds besides, until the part is loaded."""


@dataclass(frozen=True)
class Stage:
    """A stretch of the pipeline and the memory that it takes beside its parts."""

    name: str
    parts: tuple[str, ...]
    reserve: int = 0
    """Bytes of activations."""
    rows: int = 0
    """Rows that one batch would best have; how many it gets does not change results."""
    row_bytes: int = 0
    """Bytes that each row of a batch holds."""
    reason: str = ""
    """Why ``reserve`` and ``row_bytes`` are what they are."""


@dataclass(frozen=True)
class Workload:
    """One request to a model: its parts, and its stages in the order of the pipeline."""

    parts: tuple[Part, ...]
    stages: tuple[Stage, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Part]:
        return {part.name: part for part in self.parts}


@dataclass(frozen=True)
class Step:
    """Load or evict the part ``name``, or run the stage ``name``."""

    kind: Literal["load", "run", "evict"]
    name: str
    resident: int
    """Bytes in memory when it is done."""
    peak: int
    """Most bytes in memory meanwhile."""
    rows: int = 0
    """Rows of one batch, where a stage has any."""


Residents = tuple[frozenset[str], ...]
"""The parts in memory during each stage."""


@dataclass(frozen=True)
class _Path:
    """A way through the stages so far and what it cost: loads, bytes loaded, bytes held, each summed up."""

    cost: tuple[int, int, int] = (0, 0, 0)
    residents: Residents = ()


@dataclass(frozen=True)
class Room:
    """``limit`` bytes for a workload, of which the process holds ``held`` for other things all the time."""

    work: Workload
    limit: int
    held: int
    holds_files: bool
    """Whether files that are being read take of the same memory."""

    @cached_property
    def smallest(self) -> int:
        """The least ``limit`` that works: every stage with its own parts only, one row at a time."""
        return max(self._needed(stage, stage.parts, min(1, stage.rows)) for stage in self.work.stages)

    def residents(self) -> Residents | None:
        """The parts in memory during each stage; ``None`` when a stage does not fit.

        Everything stays where it fits side by side. Else a part stays only as long as it will be used again, and of
        all the ways that is the one with the fewest loads, then the fewest bytes loaded, then held. There are a handful
        of parts and stages, so all ways are looked at: with parts of unequal sizes no rule of eviction finds the best.
        """
        stages = self.work.stages
        so_far: Residents = tuple(accumulate((frozenset(stage.parts) for stage in stages), operator.or_))
        if all(self._needed(stage, so_far[-1], stage.rows) <= self.limit for stage in stages):
            return so_far
        paths = {frozenset[str](): _Path()}
        for number, stage in enumerate(stages):
            later = {part for following in stages[number + 1 :] for part in following.parts}
            paths = self._advance(paths, stage, later)
        return min(paths.values(), key=lambda path: path.cost).residents if paths else None

    def steps(self, residents: Residents) -> Iterator[Step]:
        """What makes ``residents`` true; within a stage what must go goes first."""
        present: list[str] = []
        for stage, wanted in zip(self.work.stages, residents, strict=True):
            for name in [name for name in present if name not in wanted]:
                before = self._weights(present)
                present.remove(name)
                yield Step("evict", name, self._weights(present), before)
            for name in [name for name in stage.parts if name not in present]:
                present.append(name)
                weights = self._weights(present)
                yield Step("load", name, weights, weights + self._passing(name))
            weights = self._weights(present)
            rows = self._rows(stage, weights)
            yield Step("run", stage.name, weights, weights + stage.reserve + rows * stage.row_bytes, rows)

    def _advance(
        self, paths: Mapping[frozenset[str], _Path], stage: Stage, later: set[str]
    ) -> dict[frozenset[str], _Path]:
        """The cheapest path to each set of parts that may be there during ``stage``."""
        found: dict[frozenset[str], _Path] = {}
        for before, path in paths.items():
            loaded = [self.work.by_name[name] for name in stage.parts if name not in before]
            for kept in _subsets(sorted((before & later).difference(stage.parts))):
                now = frozenset((*stage.parts, *kept))
                # A batch of two rows reads the weights half as often: rows come before parts that only wait.
                rows = stage.rows if kept else min(1, stage.rows)
                if self._needed(stage, now, rows) > self.limit:
                    continue
                loads, read, held = path.cost
                read += sum(part.bytes for part in loaded)
                cost = (loads + len(loaded), read, held + self._weights(now))
                if now not in found or cost < found[now].cost:
                    found[now] = _Path(cost, (*path.residents, now))
        return found

    def _needed(self, stage: Stage, parts: Collection[str], rows: int) -> int:
        """Bytes while ``stage`` works beside ``parts``, or while the parts that it uses are loaded, if that is more."""
        loading = max(map(self._passing, stage.parts), default=0)
        return self._weights(parts) + max(loading, stage.reserve + rows * stage.row_bytes)

    def _rows(self, stage: Stage, weights: int) -> int:
        if stage.row_bytes == 0:
            return stage.rows
        return min(stage.rows, (self.limit - weights - stage.reserve) // stage.row_bytes)

    def _weights(self, parts: Collection[str]) -> int:
        return self.held + sum(self.work.by_name[name].bytes for name in parts)

    def _passing(self, name: str) -> int:
        return self.work.by_name[name].passing if self.holds_files else 0


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (chosen for count in range(len(names) + 1) for chosen in combinations(names, count))
