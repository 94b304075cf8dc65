"""People's own data: who liked which image when, cut into windows of six and split by rule (DESIGN.md section 2).

A window is five liked images and the one that followed them.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
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
        """Of who liked what in which order, and of the split; images count by their bytes, wherever they lie.

        Raises :class:`InputError` for an image that cannot be read.
        """
        digests: dict[Path, str] = {}
        digest = hashlib.sha256()
        for window in self.windows:
            for one in window.images:
                if one.image not in digests:
                    digests[one.image] = _digest(one.image)
            liked = [[digests[one.image], one.words, one.title] for one in window.images]
            digest.update(json.dumps([window.user, window.split, liked]).encode())
        return digest.hexdigest()


def rule_split(user: str, number: int, kind: str) -> str:
    """8:1:1 by the hash of the user's name and the window's number, or of the name alone (``kind`` = ``users``).

    Split by windows, most images of a valid window are known from train windows of the same user, which flatters.
    """
    key = user if kind == "users" else f"{user}/{number}"
    # A folder's name need not be UTF-8, and JSON has halves of characters.
    return {0: "test", 1: "valid"}.get(zlib.crc32(key.encode(errors="surrogatepass")) % 10, "train")


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

    Lines are in the order of ``time`` (all of them numbers, or all of them ISO 8601 texts with a time zone, or all
    without one) where they have one, else in their own order. Raises :class:`InputError` that names the line.
    """
    rows: list[tuple[Any, Interaction]] = []
    for number, line in _numbered_lines(path):
        try:
            values = json.loads(line)
            unknown = values.keys() - {"user", "image", "words", "title", "time"}
            if unknown:
                raise ValueError(f"the field {min(unknown)!r} is unknown")
            words, title = (one_line(str(values.get(name, ""))) for name in ("words", "title"))
            time = _time(values.get("time"))
            rows.append((time, Interaction(str(values["user"]), path.parent / str(values["image"]), words, title)))
        except (ValueError, KeyError, AttributeError) as error:
            hint = 'write {"user": ..., "image": ...} in each line, and "words", "title" and "time" where there are any'
            raise InputError(f"line {number} of {path} is no interaction: {error}", hint) from error
    kinds = {(type(time), isinstance(time, datetime) and time.tzinfo is not None) for time, _ in rows}
    if len(kinds) > 1:
        raise InputError(
            f"the times in {path} are of different kinds",
            "give every line a number, or every line a text, all of them with a time zone or none",
        )
    if kinds != {(type(None), False)}:
        rows.sort(key=lambda row: row[0])
    return cut_windows(_by_user(interaction for _, interaction in rows), kind)


def _time(value: Any) -> float | datetime | None:
    """The moment that a line tells; ``ValueError`` says why it tells none."""
    if value is None:
        return None
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("time is neither a number nor a text")
    return float(value)


def _digest(image: Path) -> str:
    try:
        with image.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"cannot read the image {image}: {error.strerror}", "check its path and permissions"
        ) from error


def _by_user(interactions: Iterable[Interaction]) -> dict[str, list[Interaction]]:
    found: dict[str, list[Interaction]] = {}
    for interaction in interactions:
        found.setdefault(interaction.user, []).append(interaction)
    return found


def _numbered_lines(path: Path) -> list[tuple[int, str]]:
    try:
        # Other ends of lines than these may stand in a text.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}", "give a text file in UTF-8") from error
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
