"""Words about a reference image: the option, else a text file of the same name, else none."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.records import Reference
from pigeon_cli.history.intake import load_image

SIDECAR_BYTES: Final = 4096
"""A longer sidecar file is cut; a caption is a sentence."""


def read_reference(path: Path, caption: str | None = None) -> Reference:
    """The reference with its hash and words; raises :class:`InputError` for an unusable image."""
    digest = load_image(path).sha256
    if caption is not None:
        return Reference(path, digest, one_line(caption), "caption")
    sidecar = path.with_suffix(".txt")
    words = sidecar_words(sidecar)
    return Reference(path, digest, words, sidecar.name) if words else Reference(path, digest)


def sidecar_words(sidecar: Path) -> str:
    """Words of a sidecar file as one line, UTF-8 with replacement; ``""`` where there is no such file."""
    if not sidecar.is_file():
        return ""
    try:
        with sidecar.open("rb") as file:
            data = file.read(SIDECAR_BYTES)
    except OSError as error:
        hint = "make it readable, or give the words with --caption"
        raise InputError(f"cannot read the caption file {sidecar}: {error.strerror}", hint) from error
    return one_line(data.decode("utf-8-sig", errors="replace"))


def one_line(text: str) -> str:
    """Any run of white space becomes one space, undecodable bytes of a command line become ``?``."""
    return " ".join(text.encode("utf-8", errors="replace").decode("utf-8").split())
