"""``pigeon generate --plan``: what would be loaded, run and evicted, and the memory that each step takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pigeon_cli.cli.imports import without_collecting
from pigeon_cli.cli.talk import emit, print_note

if TYPE_CHECKING:
    from pigeon_cli.core.records import GenerateRequest

HEADER: Final = ("step", "part or stage", "memory after", "at most", "rows")


def print_plan(request: GenerateRequest, as_json: bool) -> None:
    """The plan on stdout, as a table or as JSON; why it is this one on stderr."""
    with without_collecting():
        from pigeon_cli.pipeline.run import plan
    from pigeon_cli.weights.disk import readable

    found = plan(request)
    print_note(found.reason)
    if as_json:
        emit((json.dumps(found.as_json(), indent=2) + "\n").encode())
        return
    peak = ("peak", f"{found.precision} on {found.device}", "", readable(found.peak), "")
    emit("".join(f"{line}\n" for line in aligned([HEADER, *found.table(), peak])).encode())


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with straight columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
