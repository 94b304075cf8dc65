"""Which of a user's words a model does not know, and which it does not use."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece

from pigeon_cli.pipeline.words import MOST_NAMED, known_words, split_words, word_warnings
from tests.tiny_model import WORDS, text_model


@pytest.fixture(scope="module")
def text() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=text_model(WORDS, 320))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("A Red-Fox, läuft!", ["a", "red", "fox", "läuft"]),
        ("woman\u2019s \u201chat\u201d \u2014 \u72d0\u3001\uff26\uff4f\uff58", ["woman", "s", "hat", "狐", "fox"]),
        ("👩‍🚀 $5", ["👩‍🚀", "$5"]),
        (" ?! ", []),
    ],
)
def test_split_words(words: str, parts: list[str]) -> None:
    assert split_words(words) == parts


def test_a_list_decides_where_there_is_one(tmp_path: Path, text: sentencepiece.SentencePieceProcessor) -> None:
    assert known_words(tmp_path) is None
    (tmp_path / "words.txt").write_text("狐\nfox\n", encoding="utf-8")
    known = known_words(tmp_path)
    assert word_warnings("mini", text, known, "Fox 狐 FOX", "") == ()
    (warning,) = word_warnings("mini", text, known, "red fox, red cat", "")
    assert warning == "the model mini does not know these words: red, cat"
    (warning,) = word_warnings("mini", text, known, " ".join(map(str, range(MOST_NAMED + 3))), "")
    assert warning.endswith(": 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more")


def test_without_a_list_unknown_characters_are_noticed(text: sentencepiece.SentencePieceProcessor) -> None:
    assert word_warnings("mini", text, None, "fox, xof", "") == ()
    assert word_warnings("mini", text, None, "fox 狐", "") == ("the model mini does not know these words: 狐",)


@pytest.mark.parametrize(("model", "warnings"), [("sticker", 0), ("poster", 1), ("mini", 1)])
def test_only_the_wording_of_stickers_has_a_place_for_an_emotion(
    text: sentencepiece.SentencePieceProcessor, model: str, warnings: int
) -> None:
    assert len(word_warnings(model, text, None, "fox", "joy")) == warnings
    assert word_warnings(model, text, None, "fox", "") == ()
