"""Rows of images through the instruments to a table (DESIGN.md section 2, "Metrics")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from torch import Tensor

from pigeon_cli.core.evaluation import (
    EvaluationRequest,
    EvaluationTable,
    Interval,
    Measure,
    NotComputed,
    RowFigures,
    RowFolder,
)
from pigeon_cli.evaluation.instruments import FeatureInstrument, Values, distance
from pigeon_cli.evaluation.pictures import open_drawn, open_shown, resized
from pigeon_cli.evaluation.tools import Toolbox
from pigeon_cli.metrics.intervals import bootstrap_difference, bootstrap_mean

Progress = Callable[[str, int, int], None]
FD_SAYS: Final = "Frechet distance to the targets over the requests that every row answers"


@dataclass
class _Scores:
    """One row's values as they come in, one entry per request."""

    values: list[Values] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    places: list[int | None] = field(default_factory=list)
    """Which of the drawn images is this row's, one entry per request for which any row has one."""


def evaluate(
    requests: Sequence[EvaluationRequest],
    requests_sha256: str,
    rows: Sequence[RowFolder],
    box: Toolbox,
    progress: Progress,
) -> EvaluationTable:
    """Measures every image of ``rows``; a request without one is counted as missing and in no mean.

    Raises :class:`InputError` for an image of a request that cannot be used.
    """
    measures = [measure for instrument in box.instruments for measure in instrument.measures]
    scores = [_Scores() for _ in rows]
    for number, request in enumerate(requests):
        progress("measure", number, len(requests))
        _measure(request, rows, box, scores, len(measures))
    progress("measure", len(requests), len(requests))
    distances = {name: _distances(tool, scores) for name, tool in box.distances.items()}
    groups = [request.group for request in requests]
    figures = [_figures(score, groups, distances, place) for place, score in enumerate(scores)]
    differences = [[], *(_differences(scores[0], score, groups, len(distances)) for score in scores[1:])]
    measures += [Measure("FD", name, False, f"{FD_SAYS}, {name} features") for name in distances]
    kept = [place for place in range(len(measures)) if any(row[place] is not None for row in figures)]
    return EvaluationTable(
        requests=len(requests),
        requests_sha256=requests_sha256,
        measures=tuple(measures[place] for place in kept),
        rows=tuple(
            RowFigures(
                row.name, row.baseline, len(requests) - len(score.missing), tuple(score.missing),
                tuple(own[place] for place in kept), tuple(minus[place] for place in kept if minus),
            )
            for row, score, own, minus in zip(rows, scores, figures, differences, strict=True)
        ),
        not_computed=(*box.not_computed, *_without_data(measures, kept)),
        encoders=box.encoders,
    )  # fmt: skip


def _measure(
    request: EvaluationRequest, rows: Sequence[RowFolder], box: Toolbox, scores: Sequence[_Scores], columns: int
) -> None:
    shown, found = open_shown(request).resized(), open_drawn(rows, request)
    places = [place for place, image in enumerate(found) if image is not None]
    drawn = [resized(image) for image in found if image is not None]
    parts = [tool.measure(drawn, shown) for tool in box.instruments] if drawn else []
    for place, score in enumerate(scores):
        at = places.index(place) if place in places else None
        score.values.append([None] * columns if at is None else [value for part in parts for value in part[at]])
        if at is None:
            score.missing.append(request.id)
        if drawn:
            score.places.append(at)


def _figures(
    score: _Scores, groups: Sequence[str], distances: dict[str, list[Interval | None]], row: int
) -> list[Interval | None]:
    means = [bootstrap_mean(column, groups) for column in zip(*score.values, strict=True)]
    return [*means, *(column[row] for column in distances.values())]


def _differences(first: _Scores, other: _Scores, groups: Sequence[str], distances: int) -> list[Interval | None]:
    columns = zip(zip(*first.values, strict=True), zip(*other.values, strict=True), strict=True)
    return [*(bootstrap_difference(one, two, groups) for one, two in columns), *[None] * distances]


def _distances(tool: FeatureInstrument, scores: Sequence[_Scores]) -> list[Interval | None]:
    """One per row, over the requests that have a target and an image of every row.

    The distance of fewer images is larger, so that rows are compared over the same ones.
    """
    pairs: list[list[tuple[Tensor, Tensor]]] = [[] for _ in scores]
    for (own, target), *places in zip(tool.seen, *(score.places for score in scores), strict=True):
        # One drawn image per row, in the order of the rows.
        if target is not None and None not in places:
            for row, drawn in zip(pairs, own, strict=True):
                row.append((drawn, target))
    return [distance(row) for row in pairs]


def _without_data(measures: Sequence[Measure], kept: Sequence[int]) -> list[NotComputed]:
    empty = [measure for place, measure in enumerate(measures) if place not in kept]
    return [NotComputed(each.name, _lack(each)) for each in empty]


def _lack(measure: Measure) -> str:
    if measure.metric == "FD":
        return "fewer than two requests have a target and an image of every row"
    return f"no request has {_needs(measure)} and an image"


def _needs(measure: Measure) -> str:
    if measure.metric == "CS" and measure.against == "history":
        return "words beside its history (NAME.txt)"
    return {"words": "words", "reference": "a reference", "history": "a history"}.get(measure.against, "a target")
