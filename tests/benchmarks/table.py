"""Hits to percent with intervals, differences between rows, and the same table as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.judge import Verdict

HITS = ("style", "look", "meaning", "joint")
RESAMPLES = 2000
_Z95 = 1.959964


@dataclass(frozen=True)
class RowResult:
    """Verdicts of one row in the order of the requests; None where the row does not exist for a request."""

    name: str
    says: str
    verdicts: tuple[Verdict | None, ...]

    def hits(self, kind: str) -> list[bool | None]:
        """One of HITS per request."""
        return [None if verdict is None else bool(getattr(verdict, kind)) for verdict in self.verdicts]


@dataclass(frozen=True)
class Share:
    """Percent with its 95% interval."""

    percent: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.percent:.0f} [{self.low:.0f}, {self.high:.0f}]"


def wilson(hits: int, count: int) -> Share:
    """Wilson's 95% interval of ``hits`` of ``count``, in percent (Wilson 1927)."""
    if not 0 <= hits <= count or not count:
        raise ValueError(f"{hits} hits of {count}")
    share, square = hits / count, _Z95**2 / count
    centre = (share + square / 2) / (1 + square)
    half = _Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return Share(100 * share, 100 * max(0.0, centre - half), 100 * min(1.0, centre + half))


def paired_bootstrap(
    first: Sequence[float | None], second: Sequence[float | None], groups: Sequence[str], seed: int = 0
) -> Share:
    """Mean of ``first`` - ``second`` in points with its 95% interval, groups (meanings) drawn with replacement.

    Requests that one of the two lacks count for neither.
    """
    sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one, other, group in zip(first, second, groups, strict=True):
        if one is not None and other is not None:
            sums[group][0] += float(one) - float(other)
            sums[group][1] += 1
    if not sums:
        raise ValueError("the two rows have no request in common")
    cells = list(sums.values())
    rng = random.Random(seed)
    means = sorted(_mean(rng.choices(cells, k=len(cells))) for _ in range(RESAMPLES))
    low, high = means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]
    return Share(100 * _mean(cells), 100 * low, 100 * high)


def _mean(cells: Sequence[Sequence[float]]) -> float:
    return sum(cell[0] for cell in cells) / sum(cell[1] for cell in cells)


def shares(result: RowResult) -> dict[str, Share]:
    """Wilson shares of all hits; requests that the row lacks do not count."""
    found = {kind: [hit for hit in result.hits(kind) if hit is not None] for kind in HITS}
    return {kind: wilson(sum(hits), len(hits)) for kind, hits in found.items() if hits}


def summary(
    results: Sequence[RowResult], chance: Mapping[str, float], groups: Sequence[str], about: Mapping[str, Any]
) -> dict[str, Any]:
    """The table as JSON: per row its shares, the joint difference from the first row, and percent of the ceiling."""
    top = next((shares(result) for result in results if result.name == "ceiling"), {})
    rows = []
    for result in results:
        found = shares(result)
        row: dict[str, Any] = {"row": result.name, "says": result.says}
        row["requests"] = sum(verdict is not None for verdict in result.verdicts)
        row |= {kind: _rounded(share) for kind, share in found.items()}
        if top and found:
            row["of_ceiling"] = {k: round(100 * found[k].percent / top[k].percent, 1) for k in HITS if top[k].percent}
        if result is not results[0] and found:
            row["minus_first"] = {
                kind: _rounded(paired_bootstrap(results[0].hits(kind), result.hits(kind), groups)) for kind in HITS
            }
        rows.append(row)
    return {**about, "chance": {kind: round(value, 2) for kind, value in chance.items()}, "rows": rows}


def _rounded(share: Share) -> dict[str, float]:
    return {"percent": round(share.percent, 2), "low": round(share.low, 2), "high": round(share.high, 2)}


def markdown(table: Mapping[str, Any]) -> str:
    """The table for people: percent with 95% Wilson intervals; the difference of the first row by paired bootstrap."""
    first = table["rows"][0]["row"] if table["rows"] else ""
    has_ceiling = any("of_ceiling" in row for row in table["rows"])
    heads = ["row", "n", *HITS, f"joint: {first} minus this"] + (["% of ceiling: s / m / j"] if has_ceiling else [])
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    chance = ["chance", "", *(f"{table['chance'][kind]:.1f}" for kind in HITS)]
    lines.append("| " + " | ".join(chance + [""] * (len(heads) - len(chance))) + " |")
    for row in table["rows"]:
        cells = [f"{row['row']}: {row['says']}", str(row["requests"])]
        cells += [_cell(row.get(kind)) for kind in HITS] + [_cell(row.get("minus_first", {}).get("joint"))]
        if has_ceiling:
            of = row.get("of_ceiling", {})
            cells.append(" / ".join(f"{of[kind]:.0f}" if kind in of else "-" for kind in ("style", "meaning", "joint")))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(share: Mapping[str, float] | None) -> str:
    return str(Share(**share)) if share else ""


def hits_csv(results: Sequence[RowResult], ids: Sequence[str], groups: Sequence[str]) -> str:
    """One line per row and request with its hits as 0 and 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "request", "meaning_of_request", *HITS])
    for result in results:
        for verdict, id_, group in zip(result.verdicts, ids, groups, strict=True):
            if verdict is not None:
                writer.writerow([result.name, id_, group, *(int(getattr(verdict, kind)) for kind in HITS)])
    return text.getvalue()
