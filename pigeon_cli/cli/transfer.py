"""How a download looks while it runs: one bar with rate and remaining time on a terminal, lines of talk elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pigeon_cli.cli.talk import print_note, print_warning
from pigeon_cli.report.terminal import clean

if TYPE_CHECKING:
    from pigeon_cli.weights.listener import Listener


@contextmanager
def transfer_display() -> Iterator[Listener]:
    """A listener that talks on stderr."""
    from pigeon_cli.weights.listener import Listener

    if sys.stderr is None or not sys.stderr.isatty():
        yield Listener(print_note, print_warning)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bars.remove_task(task)
                tasks.clear()
                # What an earlier run left is no speed of this one.
                tasks[what] = bars.add_task(clean(what), total=total, completed=done)
            bars.update(tasks[what], completed=done, total=total)

        yield Listener(print_note, print_warning, progress)
