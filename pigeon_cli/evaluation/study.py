"""The paper's human evaluation for everybody: blind pairs out, votes in. No torch here."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.evaluation import (
    STUDY_VERSION,
    EvaluationRequest,
    RowFolder,
    StudyCount,
    StudyKey,
    StudyPair,
)
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.evaluation.pictures import open_drawn, open_shown
from pigeon_cli.metrics.intervals import wilson
from pigeon_cli.report.study_page import StudyBuilder

CHOICES: Final = frozenset({"left", "right", "tie"})
ANSWER_BYTES: Final = 16 * 2**20
"""A longer file holds no answers."""
Progress = Callable[[str, int, int], None]


def make_study(
    requests: Sequence[EvaluationRequest],
    requests_sha256: str,
    rows: tuple[RowFolder, RowFolder],
    count: int | None,
    seed: int,
    progress: Progress,
) -> tuple[bytes, StudyKey]:
    """``study.html`` and its key: up to ``count`` requests that both rows answer, in an order and on sides by seed.

    Raises :class:`InputError` where no request has both images, or an image of a request cannot be used.
    """
    # Sides are balanced over the pairs, so these are chosen before any is shown; their images are opened again then,
    # because all at once would fill the memory.
    answered = (request for request in _shuffled(requests, seed) if None not in open_drawn(rows, request))
    chosen = list(islice(answered, count))
    if not chosen:
        names = " and ".join(str(row.folder) for row in rows)
        raise InputError(
            f"no request has an image in both {names}", "files are named by the request's id, as in ID.png"
        )
    builder = StudyBuilder()
    pairs: list[StudyPair] = []
    for request, swapped in zip(chosen, _sides(len(chosen), seed), strict=True):
        progress("pair", len(pairs), len(chosen))
        pairs.append(_add_pair(builder, request, (rows[1], rows[0]) if swapped else rows))
    progress("pair", len(chosen), len(chosen))
    study = _study_id(requests_sha256, builder)
    key = StudyKey(study, (rows[0].name, rows[1].name), seed, tuple(pairs))
    return builder.page(study), key


def read_key(path: Path) -> StudyKey:
    """The key that :func:`make_study` wrote; raises :class:`InputError` for any other file."""
    value = _read_json(path)
    try:
        first, second = value["rows"]
        key = StudyKey(value["study"], (first, second), value["seed"], tuple(StudyPair(**e) for e in value["pairs"]))
        fits = value["version"] == STUDY_VERSION and all({p.left, p.right} == set(key.rows) for p in key.pairs)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no key of a study", "name the key.json of pigeon study make") from error
    if not fits:
        raise InputError(f"{path} is no key of a study of this version", "name the key.json of pigeon study make")
    return key


def count_votes(key: StudyKey, answers: Sequence[Path]) -> StudyCount:
    """Votes of all ``answers``: wins of each row among votes for either, with Wilson's interval.

    A rater counts once: two files of one rater, and files of another study, raise :class:`InputError`.
    """
    sides = {pair.number: {"left": pair.left, "right": pair.right, "tie": None} for pair in key.pairs}
    wins: dict[str, int] = dict.fromkeys(key.rows, 0)
    raters: dict[str, Path] = {}
    total = ties = 0
    for path in answers:
        rater, votes = _read_answers(path, key, sides.keys())
        if rater in raters:
            raise InputError(f"{path} and {raters[rater]} are answers of one rater", "give the later file alone")
        raters[rater] = path
        total += len(votes)
        for number, choice in votes.items():
            winner = sides[number][choice]
            if winner is None:
                ties += 1
            else:
                wins[winner] += 1
    decided = total - ties
    shares = {row: wilson(count, decided) for row, count in wins.items()}
    return StudyCount(key.study, len(raters), total, ties, wins, shares)


def _shuffled(requests: Sequence[EvaluationRequest], seed: int) -> list[EvaluationRequest]:
    order = list(requests)
    random.Random(stream_seed(seed, "study", "order")).shuffle(order)
    return order


def _sides(count: int, seed: int) -> list[bool]:
    """Whether the first row stands on the right, by pair: as often as not, but for one pair of an odd ``count``."""
    sides = [False, True] * ((count + 1) // 2)
    random.Random(stream_seed(seed, "study", "sides")).shuffle(sides)
    return sides[:count]


def _add_pair(builder: StudyBuilder, request: EvaluationRequest, sides: tuple[RowFolder, RowFolder]) -> StudyPair:
    """The pair of ``request`` with the rows that stand left and right."""
    shown = open_shown(request)
    left, right = (image for image in open_drawn(sides, request) if image is not None)
    builder.add(shown.history, shown.reference, shown.words, left, right)
    return StudyPair(len(builder.pairs), request.id, sides[0].name, sides[1].name)


def _study_id(requests_sha256: str, builder: StudyBuilder) -> str:
    """Sixteen hexadecimal digits of what the page shows, sides included."""
    text = json.dumps([requests_sha256, builder.images, builder.pairs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_answers(path: Path, key: StudyKey, numbers: Any) -> tuple[str, dict[int, str]]:
    """Rater and choices by pair of one file; raises :class:`InputError`."""
    value = _read_json(path)
    try:
        version, study, rater = value["version"], value["study"], value["rater"]
        given = [(entry["pair"], entry["choice"]) for entry in value["answers"]]
        well_formed = version == STUDY_VERSION and isinstance(rater, str) and dict(given).keys() <= numbers
        well_formed = well_formed and all(choice in CHOICES for _, choice in given) and len(dict(given)) == len(given)
    except (KeyError, TypeError, ValueError) as error:
        raise _no_answers(path) from error
    if study != key.study:
        raise InputError(f"{path} answers another study ({study!r}, the key is of {key.study!r})", "find the right key")
    if not well_formed:
        raise _no_answers(path)
    return rater, dict(given)


def _no_answers(path: Path) -> InputError:
    return InputError(f"{path} holds no answers of a study", "name files that study.html saved")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(ANSWER_BYTES + 1)
        value = json.loads(data) if len(data) <= ANSWER_BYTES else None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON file: {error}", "name a file of pigeon study or of study.html") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is no file of a study", "name a file of pigeon study or of study.html")
    return value
