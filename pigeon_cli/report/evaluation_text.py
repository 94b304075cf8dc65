"""The table of an evaluation as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Final

from pigeon_cli.core.evaluation import EvaluationTable, Interval, NotComputed, RowFigures
from pigeon_cli.report.terminal import clean

CSV_HEADER = (
    "row", "baseline", "metric", "against", "mean", "low", "high", "count", "minus_first", "minus_first_low",
    "minus_first_high",
)  # fmt: skip
DIFFERENCE: Final = (
    "An interval without 0 is a difference, but not with fewer than about ten requests (groups, where they are named): "
    "it is then too narrow to show one."
)


def markdown(table: EvaluationTable) -> str:
    """Means with 95% intervals, then differences to the first row, then what was not computed and why."""
    heads = [f"{each.name} {'↑' if each.higher_is_better else '↓'}" for each in table.measures]
    lines = _grid(["row", "images", *heads], [_cells(row, row.figures) for row in table.rows])
    if len(table.rows) > 1:
        first = clean(table.rows[0].row)
        lines += ["", f"Minus {first}, by paired bootstrap. {DIFFERENCE}", ""]
        lines += _grid(
            ["row", *heads], [_cells(row, row.minus_first)[:1] + _shown(row.minus_first) for row in table.rows[1:]]
        )
    lines += ["", f"{table.requests} requests, sha256 {table.requests_sha256}; means with 95% bootstrap intervals."]
    lines += [f"Weights of {name}: sha256 {digest}." for name, digest in table.encoders.items()]
    lines += [f"Not computed: {names} ({reason})." for names, reason in by_reason(table.not_computed)]
    return "\n".join(lines) + "\n"


def csv_text(table: EvaluationTable) -> str:
    """One line per row and measure; empty cells where there is no figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for row in table.rows:
        differences = row.minus_first or (None,) * len(table.measures)
        for measure, found, minus in zip(table.measures, row.figures, differences, strict=True):
            figures = (found.mean, found.low, found.high, found.count) if found else (None,) * 4
            difference = (minus.mean, minus.low, minus.high) if minus else (None,) * 3
            head = (row.row, int(row.baseline), measure.metric, measure.against)
            writer.writerow([*head, *(_csv_cell(value) for value in (*figures, *difference))])
    return text.getvalue()


def by_reason(not_computed: Sequence[NotComputed]) -> list[tuple[str, str]]:
    """Names of metrics that are missing for one reason, and the reason."""
    reasons = dict.fromkeys(each.reason for each in not_computed)
    return [(", ".join(each.metric for each in not_computed if each.reason == reason), reason) for reason in reasons]


def interval_text(interval: Interval | None) -> str:
    """``mean [low, high]``, each with as many digits as its size asks for."""
    return " ".join(filter(None, interval_parts(interval)))


def interval_parts(interval: Interval | None) -> tuple[str, str]:
    """Mean and interval apart; the second is empty where there is none."""
    if interval is None:
        return "-", ""
    low, high = interval.low, interval.high
    between = f"[{_rounded(low)}, {_rounded(high)}]" if low is not None and high is not None else ""
    return _rounded(interval.mean), between


def _rounded(value: float) -> str:
    """By its own size: an end of 0.04 beside a mean of 20 is not 0."""
    return f"{value:.{1 if abs(value) >= 10 else 3}f}"


def _cells(row: RowFigures, figures: Sequence[Interval | None]) -> list[str]:
    name = clean(row.row).replace("|", "\\|") + (" (baseline)" if row.baseline else "")
    missing = f" ({len(row.missing)} missing)" if row.missing else ""
    return [name, f"{row.images}{missing}", *_shown(figures)]


def _shown(figures: Sequence[Interval | None]) -> list[str]:
    return [interval_text(figure) for figure in figures]


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = "|" + "|".join(["---"] + ["---:"] * (len(heads) - 1)) + "|"
    return [f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def _csv_cell(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"
