"""Words about an image and its title: an option, else a text file of the same name, else the file's name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.records import Reference
from pigeon_cli.history.intake import load_image

SIDECAR_BYTES: Final = 4096
"""A longer sidecar file is cut; a caption is a sentence."""
TITLE: Final = "title:"
CAMERA_NAMES: Final = frozenset(
    {"img", "image", "dsc", "dscn", "pxl", "photo", "picture", "screenshot", "scan", "untitled"}
)
"""Words of file names that say nothing about the image."""


def read_reference(path: Path, caption: str | None = None, use_name: bool = False) -> Reference:
    """The reference with its hash and words; raises :class:`InputError` for an unusable image.

    ``use_name`` takes the words of the file's name where there are no others.
    """
    digest = load_image(path).sha256
    if caption is not None:
        return Reference(path, digest, one_line(caption), "caption")
    if words := sidecar(path)[0]:
        return Reference(path, digest, words, path.with_suffix(".txt").name)
    if use_name and (words := name_words(path)):
        return Reference(path, digest, words, "file name")
    return Reference(path, digest)


def title_of(path: Path) -> str:
    """What an image is called: the title in its sidecar file, else the words there, else its file's name; without a
    year."""
    words, title = sidecar(path)
    return plain_title(title or words) or name_title(path)


def name_title(path: Path) -> str:
    """The title that a file's name tells; without a year."""
    return plain_title(path.stem.replace("_", " "))


def plain_title(text: str) -> str:
    """A title without the year that stands behind it in brackets, as the published alignment knows titles."""
    return re.sub(r"\s*\(\d{4}\)\s*$", "", one_line(text))


def name_words(path: Path) -> str:
    """The words in a file's name; ``""`` where it is a number, or what a camera calls its images."""
    found = [word for word in re.split(r"[\W_]+", one_line(path.stem)) if word.isalpha() and len(word) > 1]
    return "" if all(word.casefold() in CAMERA_NAMES for word in found) else " ".join(found)


def sidecar(image: Path) -> tuple[str, str]:
    """(words, title) of the text file beside an image, each as one line, UTF-8 with replacement; ``""`` where there is
    none. A line that begins with ``TITLE`` holds the title, all others are words.

    Raises :class:`InputError` for a file that cannot be read.
    """
    path = image.with_suffix(".txt")
    if not path.is_file():
        return "", ""
    try:
        with path.open("rb") as file:
            lines = file.read(SIDECAR_BYTES).decode("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        hint = "make it readable, or take it away"
        raise InputError(f"cannot read the text file {path}: {error.strerror}", hint) from error
    titles = [line[len(TITLE) :] for line in lines if line.lower().startswith(TITLE)]
    words = [line for line in lines if not line.lower().startswith(TITLE)]
    return one_line(" ".join(words)), one_line(" ".join(titles))


def one_line(text: str) -> str:
    """Any run of white space becomes one space, undecodable bytes of a command line become ``?``."""
    return " ".join(text.encode("utf-8", errors="replace").decode("utf-8").split())
