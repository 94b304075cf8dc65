"""What there is to tell about a user's words: which of them the model does not know, and which it does not use."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Final

import sentencepiece

from pigeon_cli.pipeline.prompt import prompt_template, render

WORD_LIST: Final = "words.txt"
"""A model folder may hold the words of its training, one a line; without it only unknown characters are noticed."""
MOST_NAMED: Final = 10


def split_words(text: str) -> list[str]:
    """Words in lower case and in their order; white space and punctuation of any script part them."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(" " if unicodedata.category(character)[0] == "P" else character for character in folded).split()


def known_words(folder: Path) -> frozenset[str] | None:
    """The word list of a model folder, ``None`` where it has none."""
    path = folder / WORD_LIST
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else None


def word_warnings(
    model: str,
    text: sentencepiece.SentencePieceProcessor,
    known: frozenset[str] | None,
    words: str,
    emotion: str,
    title: str = "",
) -> tuple[str, ...]:
    """Sentences about ``words`` that the model has never seen, and about an ``emotion`` or ``title`` that its wording,
    called ``model`` like the model itself, leaves out."""
    told = []
    if unknown := _unknown(text, known, words):
        named = ", ".join(unknown[:MOST_NAMED])
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        told.append(f"the model {model} does not know these words: {named}{more}")
    for name, value in (("emotion", emotion), ("title", title)):
        if value and not has_place(model, name):
            told.append(f"the model {model} does not use --{name}: its prompt has no place for it")
    return tuple(told)


def has_place(wording: str, name: str) -> bool:
    """Whether a wording uses the value ``name``."""
    template = prompt_template(wording)
    return render(template, {name: "x"}) != render(template, {})


def _unknown(text: sentencepiece.SentencePieceProcessor, known: frozenset[str] | None, words: str) -> list[str]:
    distinct = dict.fromkeys(split_words(words))
    if known is not None:
        return [word for word in distinct if word not in known]
    # Spelled in bytes: no piece of the text model has these characters.
    return [word for word in distinct if any(text.is_unknown(id) or text.is_byte(id) for id in text.encode(word))]
