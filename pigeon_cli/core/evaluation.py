"""Records of an evaluation and of a study: requests, intervals, tables, pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pigeon_cli.core.records import plain

TABLE_VERSION: Final = 1
"""Of ``table.json``."""
STUDY_VERSION: Final = 1
"""Of ``key.json`` and of the answers that ``study.html`` saves."""


@dataclass(frozen=True)
class EvaluationRequest:
    """One request: ``id`` names its image in every row's folder; requests of one ``group`` are resampled together."""

    id: str
    history: tuple[Path, ...]
    reference: Path | None
    words: str
    target: Path | None
    """The right answer, where one is known."""
    group: str


@dataclass(frozen=True)
class RowFolder:
    """A row of the table: the images of one program. A ``baseline`` was made by another program than pigeon."""

    name: str
    folder: Path
    baseline: bool = False


@dataclass(frozen=True)
class Interval:
    """A mean or a share of ``count`` values with its 95% interval.

    There is none around a distance of two sets of images, and around the mean of one group.
    """

    mean: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Measure:
    """One column: a metric against the words, the reference, the history or the target."""

    metric: str
    against: str
    higher_is_better: bool
    says: str

    @property
    def name(self) -> str:
        """As in the header of a table."""
        return f"{self.metric} {self.against}"


@dataclass(frozen=True)
class NotComputed:
    """A metric that the table lacks, and why."""

    metric: str
    reason: str


@dataclass(frozen=True)
class RowFigures:
    """One row's figures; ``None`` where no request has what a measure needs."""

    row: str
    baseline: bool
    images: int
    missing: tuple[str, ...]
    """Ids of requests without a readable image."""
    figures: tuple[Interval | None, ...]
    """In the order of the table's measures."""
    minus_first: tuple[Interval | None, ...]
    """This row minus the first, by paired bootstrap; empty for the first row."""


@dataclass(frozen=True)
class EvaluationTable:
    """Everything that ``table.json`` says."""

    requests: int
    requests_sha256: str
    measures: tuple[Measure, ...]
    rows: tuple[RowFigures, ...]
    not_computed: tuple[NotComputed, ...]
    encoders: dict[str, str]
    """Metric family to a hash of the weights it was computed with."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"version": TABLE_VERSION, **plain(self)}


@dataclass(frozen=True)
class StudyPair:
    """Which row's image stands on which side of a pair; ``number`` counts from 1 in the order of the page."""

    number: int
    request: str
    left: str
    right: str


@dataclass(frozen=True)
class StudyKey:
    """What the people asked must not see."""

    study: str
    rows: tuple[str, str]
    seed: int
    pairs: tuple[StudyPair, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"version": STUDY_VERSION, **plain(self)}


@dataclass(frozen=True)
class StudyCount:
    """Votes of a study: ``shares`` are wins among votes for either row; answers of "no difference" are ``ties``."""

    study: str
    raters: int
    answers: int
    ties: int
    wins: dict[str, int]
    shares: dict[str, Interval | None]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"version": STUDY_VERSION, **plain(self)}
