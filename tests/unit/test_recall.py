"""Which drawing that is known by heart words ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.pipeline.recall import MEMORY_LIST, Remembered, recall, remembered

DRAWINGS = tuple(
    Remembered(*entry)
    for entry in (
        ("birthday cake", "celebration dessert pastry"),
        ("shortcake", "cake dessert pastry sweet"),
        ("cat", "animal pet"),
        ("cat face", "animal pet"),
        ("crown", "clothing king queen"),
        ("red heart", "love"),
        ("blue heart", "love"),
        ("regional indicator a", "letter"),
    )
)


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ("birthday cake", "birthday cake"),
        ("A Birthday Cake!", "birthday cake"),
        ("cat", "cat"),
        ("a cat on the sofa", "cat"),
        ("face of a cat", "cat face"),
        ("a king", "crown"),
        ("blue heart", "blue heart"),
        ("blue 🦊", "blue heart"),
    ],
)
def test_words_bring_back_what_they_name(words: str, label: str) -> None:
    number = recall(DRAWINGS, words)
    assert number is not None and DRAWINGS[number].label == label


@pytest.mark.parametrize("words", ["", "a", "xyzzy", "the 狐", "a letter from the queen to her pet"])
def test_words_that_name_nothing_or_too_much_bring_nothing_back(words: str) -> None:
    assert recall(DRAWINGS, words) is None


def test_nothing_is_found_where_nothing_is_known() -> None:
    assert recall((), "cat") is None


def test_the_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    drawings = (*DRAWINGS, Remembered("plain"))
    (tmp_path / MEMORY_LIST).write_text("".join(f"{one.line()}\n" for one in drawings), encoding="utf-8")
    assert remembered(tmp_path) == drawings


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=MEMORY_LIST):
        remembered(tmp_path)
