"""People's own data: who liked which image when, cut into windows of six and split by rule (DESIGN.md section 2).

A window is five liked images and the one that followed them.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pigeon_cli.core.errors import InputError
from pigeon_cli.history.words import one_line

WINDOW: Final = 6
SPLIT_KINDS: Final = ("windows", "users")


@dataclass(frozen=True)
class Interaction:
    """One image that a user liked."""

    user: str
    image: Path
    words: str = ""
    title: str = ""

    @property
    def told(self) -> str:
        """What a prompt says about it."""
        return self.words or self.title


@dataclass(frozen=True)
class Window:
    """Six images of one user in their order; the last one is what is asked for."""

    user: str
    number: int
    images: tuple[Interaction, ...]
    split: str
    """``train``, ``valid`` or ``test``."""

    @property
    def history(self) -> tuple[Interaction, ...]:
        return self.images[:-1]

    @property
    def target(self) -> Interaction:
        return self.images[-1]


@dataclass(frozen=True)
class People:
    """All windows of some data, users one after another."""

    windows: tuple[Window, ...]
    warnings: tuple[str, ...] = ()

    def of_split(self, split: str) -> list[Window]:
        """The windows of ``train``, ``valid`` or ``test``."""
        return [window for window in self.windows if window.split == split]

    @property
    def sha256(self) -> str:
        """Of who liked what in which order, and of the split."""
        digest = hashlib.sha256()
        for window in self.windows:
            names = [[one.image.as_posix(), one.words, one.title] for one in window.images]
            digest.update(json.dumps([window.user, window.split, names]).encode())
        return digest.hexdigest()


def rule_split(user: str, number: int, kind: str) -> str:
    """8:1:1 by the hash of the user's name and the window's number, or of the name alone (``kind`` = ``users``).

    Split by windows, most images of a valid window are known from train windows of the same user, which flatters.
    """
    key = user if kind == "users" else f"{user}/{number}"
    return {0: "test", 1: "valid"}.get(zlib.crc32(key.encode()) % 10, "train")


def cut_windows(by_user: Mapping[str, Sequence[Interaction]], kind: str) -> People:
    """Windows of six, one step apart; users with fewer images have none and are counted in a warning.

    Raises :class:`InputError` where nobody has six.
    """
    windows = [
        Window(user, start, tuple(liked[start : start + WINDOW]), rule_split(user, start, kind))
        for user, liked in by_user.items()
        for start in range(len(liked) - WINDOW + 1)
    ]
    short = sum(len(liked) < WINDOW for liked in by_user.values())
    if not windows:
        raise InputError(
            f"none of {len(by_user)} users has {WINDOW} images", f"give at least {WINDOW} liked images a user"
        )
    warnings = (f"left out: {short} users with fewer than {WINDOW} images",) if short else ()
    return People(tuple(windows), warnings)


def read_interactions(path: Path, kind: str) -> People:
    """A JSONL of ``{"user", "image", "words"?, "title"?, "time"?}``; image paths are relative to the file's folder.

    Lines are in the order of ``time`` (all of them numbers, or all of them ISO 8601 texts) where they have one, else
    in their own order. Raises :class:`InputError` that names the line.
    """
    rows: list[tuple[Any, Interaction]] = []
    for number, line in _numbered_lines(path):
        try:
            values = json.loads(line)
            unknown = values.keys() - {"user", "image", "words", "title", "time"}
            if unknown:
                raise ValueError(f"the field {min(unknown)!r} is unknown")
            words, title = (one_line(str(values.get(name, ""))) for name in ("words", "title"))
            time = values.get("time")
            if time is not None and (isinstance(time, bool) or not isinstance(time, int | float | str)):
                raise ValueError("time is neither a number nor a text")
            rows.append((time, Interaction(str(values["user"]), path.parent / str(values["image"]), words, title)))
        except (ValueError, KeyError, AttributeError) as error:
            hint = 'write {"user": ..., "image": ...} in each line, and "words", "title" and "time" where there are any'
            raise InputError(f"line {number} of {path} is no interaction: {error}", hint) from error
    kinds = {str if isinstance(time, str) else type(None) if time is None else float for time, _ in rows}
    if len(kinds) > 1:
        raise InputError(
            f"the times in {path} are of different kinds", "give every line a number, or every line a text"
        )
    if kinds != {type(None)}:
        rows.sort(key=lambda row: row[0])
    return cut_windows(_by_user(interaction for _, interaction in rows), kind)


def _by_user(interactions: Iterable[Interaction]) -> dict[str, list[Interaction]]:
    found: dict[str, list[Interaction]] = {}
    for interaction in interactions:
        found.setdefault(interaction.user, []).append(interaction)
    return found


def _numbered_lines(path: Path) -> list[tuple[int, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}", "give a text file in UTF-8") from error
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
