"""stdout is data, stderr is talk: the only functions that print."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pigeon_cli.core.errors import OutputError
from pigeon_cli.report.terminal import clean


class Progress(Protocol):
    """What a pipeline calls: the stage's name, how much of it is done, how much there is."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def emit(data: bytes, written: str = "") -> None:
    """Writes to stdout; a reader that left early is no failure, since the files are written by then.

    ``written`` says which files those are. Raises :class:`OutputError` when stdout cannot take the data.
    """
    if sys.stdout is None:  # closed by the caller, as in ``>&-``
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        hint = f"{written} themselves are written" if written else "send the output where there is room"
        raise OutputError(f"cannot write to standard output: {error.strerror}", hint) from error


def print_warning(text: str) -> None:
    """One line on stderr."""
    _say(f"warning: {clean(text)}")


def print_note(text: str) -> None:
    """One line on stderr."""
    _say(clean(text))


def print_error(message: str, hint: str) -> None:
    """One line on stderr, and one for the hint if there is one."""
    _say(f"error: {clean(message)}")
    if hint:
        _say(f"hint: {clean(hint)}")


def _say(line: str) -> None:
    if sys.stderr is None:  # closed by the caller, as in ``2>&-``
        return
    # Nobody reading stderr, or a full disk under it, must not stop the work.
    with contextlib.suppress(OSError):
        encoding = sys.stderr.encoding or "utf-8"
        print(line.encode(encoding, errors="backslashreplace").decode(encoding), file=sys.stderr, flush=True)


@contextmanager
def progress_display(quiet: bool) -> Iterator[Progress]:
    """Bars on a terminal, one short line a stage elsewhere, nothing when quiet."""
    if quiet:
        yield lambda stage, done, total: None
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bars() as progress:
            yield progress
    else:
        yield _lines()


def _lines() -> Progress:
    seen: set[str] = set()

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in seen:
            seen.add(stage)
            _say(f"{clean(stage)} ({total})")

    return progress


@contextmanager
def _bars() -> Iterator[Progress]:
    # Rich costs 50 ms that --help, --quiet and pipelines need not pay.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(clean(stage), total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield progress
