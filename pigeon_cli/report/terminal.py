"""Text from outside made safe to print: file names and messages may hold anything."""

from __future__ import annotations

import unicodedata
from typing import Final

DIRECTION_MARKS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that make a line read differently from what it says."""

UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def is_unsafe(character: str) -> bool:
    """Control characters, lone surrogates (undecodable bytes of a name), line separators, direction marks."""
    return unicodedata.category(character) in UNSAFE_CATEGORIES or character in DIRECTION_MARKS


def clean(text: str) -> str:
    """``text`` on one line with every unsafe character written as its escape, such as ``\\x1b``."""
    return "".join(_escape(character) if is_unsafe(character) else character for character in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
