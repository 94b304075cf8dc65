"""The dial figure, through its command, on a tiny dataset with drawings that are known blends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pigeon_cli.core.errors import InputError
from pigeon_cli.training.data.icons import build_dataset
from tests.benchmarks import dial as command
from tests.benchmarks.rows import EvaluationRequest, RequestImages
from tests.tiny_icons import write_icon_packages

REQUESTS = 8


class _Blend:
    """Moves from the reference to a history image as the dial grows, or the other way round."""

    def __init__(self, reverse: bool = False, failing: bool = False) -> None:
        self.reverse, self.failing = reverse, failing
        self.calls: list[dict[str, Any]] = []

    @property
    def fingerprint(self) -> str:
        return f"blend {self.reverse}"

    def draw(self, request: EvaluationRequest, images: RequestImages, *, dial: float, **settings: Any) -> Image.Image:
        self.calls.append({"dial": dial, **settings})
        if self.failing and dial == 0.5 and len(self.calls) < 6:
            raise InputError("cannot draw this")
        return Image.blend(images.reference, images.history[0], 1 - dial if self.reverse else dial)


_current: dict[str, _Blend] = {}


def drawer() -> _Blend:
    """What ``--generator`` names."""
    return _current["drawer"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("data")
    write_icon_packages(source)
    build_dataset(source, out, size=32)
    return out


def _run(monkeypatch: pytest.MonkeyPatch, data: Path, out: Path, blend: _Blend, *more: str) -> int:
    monkeypatch.setitem(_current, "drawer", blend)
    options = ["--data", str(data), "--out", str(out), "--requests", str(REQUESTS), "--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["dial.py", *options, "--generator", f"{__name__}:drawer", *more])
    return command.main()


def _line_heights(path: Path, kind: str) -> tuple[float, float]:
    """Rows of the panel's line just right of dial 0 and just left of dial 1, between the points; titles cut off."""
    pixels = np.asarray(Image.open(path).convert("RGB"))[100:].astype(int)
    colour = [int(command.COLOURS[kind][at : at + 2], 16) for at in (1, 3, 5)]
    rows, columns = np.nonzero(np.abs(pixels - colour).max(axis=2) < 4)
    first, last = columns.min(), columns.max()
    return float(rows[columns == first].mean()), float(rows[columns == last].mean())


def test_a_dial_that_works(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blend, picture = _Blend(), tmp_path / "figures" / "dial.png"
    assert _run(monkeypatch, data, tmp_path / "out", blend, "--plot", str(picture)) == 0
    text = capsys.readouterr().out
    assert text == (tmp_path / "out" / "dial.md").read_text(encoding="utf-8")
    table, last = text.splitlines()[:7], text.splitlines()[-1]
    assert [line.split("|")[1].strip() for line in table[2:]] == ["0", "0.25", "0.5", "0.75", "1"]
    assert "the reference falls: its interval is below 0" in last
    assert "the history does not fall: its interval is not below 0" in last
    found = json.loads((tmp_path / "out" / "dial.json").read_text(encoding="utf-8"))
    reference = [row["reference"]["mean"] for row in found["rows"]]
    history = [row["history"]["mean"] for row in found["rows"]]
    # At dial 0 the drawing is the reference, in other z-scores; at dial 1 it is one of five liked images.
    assert reference[0] > 50 and reference == sorted(reference, reverse=True)
    assert history[-1] > history[0] and (found["requests"], found["failed"]) == (REQUESTS, 0)
    for row in found["rows"]:
        for cell, first in ((row["reference"], reference[0]), (row["history"], history[0])):
            assert cell["change"] == pytest.approx(cell["mean"] - first, abs=2e-4)
            assert cell["low"] <= cell["change"] <= cell["high"]
    with Image.open(picture) as file:
        assert (file.format, file.size) == ("PNG", (1680, 648))
    start, end = _line_heights(picture, "reference")
    assert end > start + 50
    start, end = _line_heights(picture, "history")
    assert end < start - 50


def test_a_dial_that_is_the_wrong_way_round_is_said_to_be(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, data, tmp_path, _Blend(reverse=True)) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "the reference does not fall" in last and "the history falls: its interval is below 0" in last
    start, end = _line_heights(tmp_path / "dial.png", "reference")
    assert end < start - 50


def test_draws_are_asked_for_without_words_and_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blend = _Blend(failing=True)
    assert _run(monkeypatch, data, tmp_path, blend) == 0
    usual = {"mask": "learned", "alignment": "full", "words": False, "seed": 3, "history_mask": None}
    assert blend.calls == [{"dial": dial, **usual} for _ in range(REQUESTS) for dial in command.DIALS]
    said = capsys.readouterr()
    # One request lacks one position: it counts nowhere.
    assert f"requests {REQUESTS - 1}, failed 1" in said.out and "cannot draw this" in said.err
    assert len(list((tmp_path / "draws" / "dial-0.25").glob("*.png"))) == REQUESTS
    again = _Blend()
    assert _run(monkeypatch, data, tmp_path, again) == 0
    assert [call["dial"] for call in again.calls] == [0.5]
    capsys.readouterr()
    assert _run(monkeypatch, data, tmp_path, _Blend(reverse=True)) == 2
    said = capsys.readouterr()
    assert said.out == "" and "other settings or weights" in said.err


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-31.0, 0.0, [-40, -30, -20, -10, 0]),
        (-0.3, 4.1, [-1, 0, 1, 2, 3, 4, 5]),
        (0.0, 0.0, [0.0, 0.2]),
        (-12.0, 9.0, [-15, -10, -5, 0, 5, 10]),
    ],
)
def test_ticks_are_round_numbers_around_the_values(low: float, high: float, expected: list[float]) -> None:
    assert command._ticks(low, high) == pytest.approx(expected)
