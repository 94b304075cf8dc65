"""Preference pairs on disk: one JSON line each, everything in it that stage 2 needs (issue 5, section 1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import InputError
from pigeon_cli.training.sequences import CodedRequest

NEAR_TIES: Final = {"history": 0.5, "both": 0.5, "answer": 0.1}
"""By kind of score, the least difference between chosen and rejected; below it nothing would be learned but noise.
``history`` and ``both`` count in deviations over requests, ``answer`` in cosines."""


@dataclass(frozen=True)
class ScoredCandidate:
    """What was drawn at one dial position."""

    dial: float
    kept: tuple[int, ...]
    """Tokens of the reference that the language model saw, numbered from 0."""
    codes: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class PreferencePair:
    """The best and the worst candidate of one request."""

    request: int
    """Its number under the seed of the file."""
    history: tuple[tuple[int, ...], ...]
    history_kept: tuple[int, ...]
    """Tokens of the history that the language model saw, numbered from 0 over all images."""
    planted: tuple[int, ...]
    """Numbers of history images that are known not to be of the user's taste."""
    reference: tuple[int, ...]
    words: str
    chosen: ScoredCandidate
    rejected: ScoredCandidate
    scores: tuple[tuple[float, float], ...]
    """Dial position and score of every candidate, in the order of drawing."""

    def coded(self) -> CodedRequest:
        """The request without an answer."""
        return CodedRequest(self.history, self.planted, self.words, self.reference, (), ())

    def to_json(self) -> str:
        """One line; :meth:`from_json` is its inverse."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> PreferencePair:
        """Raises ``ValueError``, ``TypeError`` or ``KeyError`` for anything but a line of :meth:`to_json`."""
        values = json.loads(line)
        chosen, rejected = (
            ScoredCandidate(float(one["dial"]), _integers(one["kept"]), _integers(one["codes"]), float(one["score"]))
            for one in (values["chosen"], values["rejected"])
        )
        return cls(
            request=int(values["request"]),
            history=tuple(_integers(image) for image in values["history"]),
            history_kept=_integers(values["history_kept"]),
            planted=_integers(values["planted"]),
            reference=_integers(values["reference"]),
            words=str(values["words"]),
            chosen=chosen,
            rejected=rejected,
            scores=tuple((float(dial), float(score)) for dial, score in values["scores"]),
        )


def choose_pair(candidates: Sequence[ScoredCandidate], kind: str) -> tuple[ScoredCandidate, ScoredCandidate] | None:
    """Best and worst by score, the earlier one in ties; ``None`` for a near-tie (``NEAR_TIES``)."""
    best, worst = max(candidates, key=lambda one: one.score), min(candidates, key=lambda one: one.score)
    return None if best.score - worst.score < NEAR_TIES[kind] else (best, worst)


def read_pairs(path: Path, spec: ModelSpec) -> list[PreferencePair]:
    """The pairs of a finished file; :class:`InputError` names the line that is none, or is of another model."""
    pairs = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            pair = PreferencePair.from_json(line)
            _check(pair, spec)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"line {number} of {path} is no preference pair for the model {spec.name}: {error}",
                "make the pairs with: pigeon align pairs",
            ) from error
        pairs.append(pair)
    if not pairs:
        raise InputError(f"there are no preference pairs in {path}", "make some with: pigeon align pairs")
    return pairs


def begin_pairs(path: Path, settings: Mapping[str, Any]) -> int:
    """Make ready to append to ``path``; returns the number of the last request in it, -1 when it is new.

    Settings stand beside the pairs, so that a file is only ever continued as it was begun: :class:`InputError`
    otherwise. A line that a killed run left unfinished is cut off.
    """
    beside = path.with_suffix(".settings.json")
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        path.touch()
        return -1
    if not beside.is_file() or beside.read_text(encoding="utf-8") != text:
        raise InputError(
            f"{path} was made from other data, another model or other settings ({beside.name} names them)",
            "delete it, or choose another file with --out",
        )
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        with path.open("r+b") as stream:
            stream.truncate(len(whole))
    lines = whole.splitlines()
    try:
        return int(json.loads(lines[-1])["request"]) if lines else -1
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the last line of {path} is no preference pair: {error}", "delete it, and go on") from error


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the pairs {path}: {error}", "make them with: pigeon align pairs") from error


def _check(pair: PreferencePair, spec: ModelSpec) -> None:
    codes = [*pair.history, pair.reference, pair.chosen.codes, pair.rejected.codes]
    if not all(0 <= code < spec.vocabulary.code_count for image in codes for code in image):
        raise ValueError("it holds a code that the model does not have")
    if not (pair.history and pair.reference and pair.chosen.codes and pair.rejected.codes):
        raise ValueError("an image in it has no codes")
    for kept, count in (
        (pair.history_kept, sum(map(len, pair.history))),
        (pair.chosen.kept, len(pair.reference)),
        (pair.rejected.kept, len(pair.reference)),
    ):
        if not all(0 <= place < count for place in kept):
            raise ValueError("it keeps a token that is not there")


def _integers(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
