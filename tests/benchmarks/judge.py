"""The judge: does a drawing have the right style, look and meaning? (DESIGN.md section 3, "The evaluation protocol").

Every comparison is a cosine. *meaning*: z-scores of the pooled head, per set. *style*: mean and deviation of the
first two stages' maps on the axes that tell sets apart, plus ``nearness_weight`` times nearness; both axes and weight
are constants, the axes from train cells, the weight chosen on valid cells. *look*: raw style features plus nearness,
because the set axes were made blind to looks. Made again by ``python -m tests.benchmarks.judge --data DIR``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.benchmarks.judge_network import Features, JudgeNetwork

CONSTANTS_FILE = Path(__file__).with_name("judge.json")
_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True)
class JudgeConstants:
    """``style_mean`` [80], ``style_axes`` [80, 8]; per set ``meaning_mean`` and ``meaning_deviation`` [1280]."""

    style_mean: Tensor
    style_axes: Tensor
    meaning_mean: Mapping[str, Tensor]
    meaning_deviation: Mapping[str, Tensor]
    nearness_weight: float

    def to_json(self) -> dict[str, Any]:
        """Plain numbers of five significant digits."""
        return {
            "nearness_weight": self.nearness_weight,
            "style_mean": _numbers(self.style_mean),
            "style_axes": [_numbers(row) for row in self.style_axes],
            "meaning_mean": {name: _numbers(row) for name, row in sorted(self.meaning_mean.items())},
            "meaning_deviation": {name: _numbers(row) for name, row in sorted(self.meaning_deviation.items())},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JudgeConstants:
        """The constants of ``to_json``."""
        return cls(
            torch.tensor(value["style_mean"]),
            torch.tensor(value["style_axes"]),
            {name: torch.tensor(row) for name, row in value["meaning_mean"].items()},
            {name: torch.tensor(row) for name, row in value["meaning_deviation"].items()},
            float(value["nearness_weight"]),
        )


@dataclass(frozen=True)
class Verdict:
    """Hits of one drawing; ``joint`` is the headline."""

    style: bool = False
    look: bool = False
    meaning: bool = False

    @property
    def joint(self) -> bool:
        """Style and meaning on one image."""
        return self.style and self.meaning


@dataclass(frozen=True)
class CandidateFeatures:
    """What one drawing is compared with; the right answer is row 0 everywhere.

    ``style``: the meaning in all sets under the user's look; ``look``: the cell under nine looks;
    ``meaning``: 50 cells of ``set_name`` under the look.
    """

    set_name: str
    style: Features
    look: Features
    meaning: Features


class Judge:
    """Compares features; pictures become features in :class:`JudgeNetwork`."""

    def __init__(self, constants: JudgeConstants) -> None:
        self.constants = constants

    @classmethod
    def load(cls, path: Path = CONSTANTS_FILE) -> Judge:
        """The judge with the committed constants."""
        return cls(JudgeConstants.from_json(json.loads(path.read_text(encoding="utf-8"))))

    def verdict(self, drawn: Features, candidates: CandidateFeatures) -> Verdict:
        """Hits of one drawing (``drawn`` has one row)."""
        return Verdict(
            style=first_wins(self.style_similarity(drawn, candidates.style)),
            look=first_wins(self.look_similarity(drawn, candidates.look)),
            meaning=first_wins(self.meaning_similarity(drawn, candidates.meaning, candidates.set_name)),
        )

    def style_similarity(self, drawn: Features, others: Features) -> Tensor:
        """[N] of one drawing to N candidates: cosine on the set axes + weight x cosine of nearness."""
        axes = cosine(self._on_axes(drawn), self._on_axes(others))
        return axes + self.constants.nearness_weight * cosine(drawn.nearness, others.nearness)

    def look_similarity(self, drawn: Features, others: Features) -> Tensor:
        """[N]: cosine of the raw style features + cosine of nearness."""
        return cosine(drawn.style, others.style) + cosine(drawn.nearness, others.nearness)

    def meaning_similarity(self, drawn: Features, others: Features, set_name: str, drawn_set: str = "") -> Tensor:
        """[N]: cosine of z-scores; ``drawn_set`` when the drawing is of another set than the candidates."""
        return cosine(self._z(drawn, drawn_set or set_name), self._z(others, set_name))

    def _on_axes(self, features: Features) -> Tensor:
        return (features.style.float() - self.constants.style_mean) @ self.constants.style_axes

    def _z(self, features: Features, set_name: str) -> Tensor:
        deviation = self.constants.meaning_deviation[set_name] + _SMALLEST_DEVIATION
        return (features.meaning.float() - self.constants.meaning_mean[set_name]) / deviation


def cosine(one: Tensor, many: Tensor) -> Tensor:
    """Cosine of one row [1, D] (or [D]) with N rows [N, D], float32 [N]."""
    return functional.cosine_similarity(one.float().reshape(1, -1), many.float(), dim=1)


def first_wins(similarity: Tensor) -> bool:
    """True when row 0 is strictly above all others: a tie, as of a blank image, is a miss."""
    return bool((similarity[0] > similarity[1:]).all()) and len(similarity) > 1


def _numbers(row: Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in row.tolist()]


def main() -> None:
    """Make judge.json from the train cells of a dataset, or check the committed one on valid cells."""
    from tests.benchmarks.judge_check import found_among_300
    from tests.benchmarks.judge_constants import make_constants

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--check", action="store_true", help="only print the figure on real valid icons")
    arguments = parser.parse_args()
    from pigeon_cli.training.data.dataset import load_dataset

    dataset, network = load_dataset(arguments.data), JudgeNetwork()
    if not arguments.check:
        constants = make_constants(dataset, network)
        CONSTANTS_FILE.write_text(json.dumps(constants.to_json(), separators=(",", ":")) + "\n", encoding="utf-8")
    hits, queries = found_among_300(dataset, network, Judge.load())
    print(f"same meaning in another style among 300, first try: {100 * hits / queries:.0f}% of {queries} valid icons")


if __name__ == "__main__":
    main()
