"""Seconds per stage, and word of them to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pigeon_cli.core.records import StageTiming
from pigeon_cli.engine.residency import Parts

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done and how much there is."""


class Stages:
    """The clock of one call; what a plan loads for a stage is loaded as it begins, and is a stage of its own."""

    def __init__(self, parts: Parts, progress: Progress | None) -> None:
        self._parts, self._progress = parts, progress
        self._seconds: dict[str, float] = {}
        self._loaded_before = parts.seconds

    @contextmanager
    def __call__(self, name: str, total: int) -> Iterator[None]:
        """Count the body's seconds under ``name``; ``total`` is the amount of work for the watcher."""
        self._tell(name, 0, total)
        self._parts.enter(name)
        started, loading = time.perf_counter(), self._parts.seconds
        yield
        spent = time.perf_counter() - started - (self._parts.seconds - loading)
        self._seconds[name] = self._seconds.get(name, 0.0) + spent
        self._tell(name, total, total)

    def timings(self) -> tuple[StageTiming, ...]:
        """Loading first, then every stage in order."""
        loading = StageTiming("load", self._parts.seconds - self._loaded_before)
        return (loading, *(StageTiming(name, seconds) for name, seconds in self._seconds.items()))

    def _tell(self, name: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(name, done, total)
