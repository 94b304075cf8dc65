"""``page.html`` of ``pigeon evaluate``: the table, the bars and the pictures of every request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from pigeon_cli.core.evaluation import EvaluationTable, RowFigures
from pigeon_cli.report.evaluation_text import DIFFERENCE, by_reason, interval_parts
from pigeon_cli.report.page import picture_uri, render

SIDE: Final = 256
"""Pixels of a picture's longer side at most."""
PLOT_SIDE: Final = 4096
PAGE_REQUESTS: Final = 200
"""A page of more would be too heavy for a browser; the first ones in order are shown, never the best."""


@dataclass(frozen=True)
class ShownRequest:
    """What the page shows of one request, as data URIs; ``None`` for a drawing that is missing."""

    id: str
    words: str
    history: tuple[str, ...]
    reference: str | None
    drawn: tuple[str | None, ...]
    target: str | None


def shown_request(
    name: str,
    words: str,
    history: Sequence[Image.Image],
    reference: Image.Image | None,
    drawn: Sequence[Image.Image | None],
    target: Image.Image | None,
) -> ShownRequest:
    """The request with its images encoded at once, so that none stays in memory."""
    return ShownRequest(
        name, words, tuple(picture_uri(image, SIDE) for image in history), _uri(reference), tuple(map(_uri, drawn)),
        _uri(target),
    )  # fmt: skip


def evaluation_page(table: EvaluationTable, plot: Image.Image | None, shown: Sequence[ShownRequest]) -> bytes:
    """UTF-8 HTML that needs nothing else."""
    return render(
        "evaluation.html",
        "page.css",
        table=table,
        rows=[_row(row) for row in table.rows],
        difference=DIFFERENCE,
        plot=picture_uri(plot, PLOT_SIDE) if plot else None,
        shown=shown,
        not_computed=by_reason(table.not_computed),
    )


def _row(row: RowFigures) -> dict[str, Any]:
    return {
        "name": row.row,
        "baseline": row.baseline,
        "images": row.images,
        "missing": len(row.missing),
        "figures": [interval_parts(each) for each in row.figures],
        "minus_first": [interval_parts(each) for each in row.minus_first],
    }


def _uri(image: Image.Image | None) -> str | None:
    return None if image is None else picture_uri(image, SIDE)
