"""What is in a part's folder of the cache, where it came from and with which hashes.

``manifest.json`` is written last and makes a part complete. While a download runs the same records are in
``manifest.json.part``, rewritten after each file, so that a later run knows what is done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.disk import write_whole, writing

NAME: Final = "manifest.json"
JOURNAL: Final = "manifest.json.part"
FORMAT: Final = 1


@dataclass(frozen=True)
class Origin:
    """A file of the source, as it came."""

    path: str
    bytes: int
    sha256: str
    identity: str
    """See :class:`SourceFile`; for files of the hub its own claim, ``sha256:`` or ``git-sha1:``."""


@dataclass(frozen=True)
class StoredFile:
    """One file of the folder, as it was when it was checked or made."""

    path: str
    bytes: int
    sha256: str
    origins: tuple[Origin, ...]
    """What it was made of: one file, or the pieces of an alignment."""


@dataclass(frozen=True)
class Acceptance:
    """Which licence was accepted, and when (ISO 8601, UTC)."""

    name: str
    link: str
    accepted_at: str


@dataclass(frozen=True)
class Manifest:
    """The records of one part."""

    part: str
    source: str
    commit: str
    licence: Acceptance | None
    files: tuple[StoredFile, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def stored(self, origin: str, identity: str) -> StoredFile | None:
        """What became of the file ``origin`` of a source, if it had this content."""
        made = {tuple((one.path, one.identity) for one in file.origins): file for file in self.files}
        return made.get(((origin, identity),))


def read_manifest(path: Path) -> Manifest | None:
    """``None`` when there is no such file; raises :class:`WeightsError` for a damaged one."""
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"cannot read {path}: {error}", "delete this file and run the same command again") from error


def recorded_files(folder: Path) -> tuple[StoredFile, ...]:
    """What a manifest of ours in ``folder`` says of its files; none where there is no such file, or another's."""
    try:
        return _parse(json.loads((folder / NAME).read_text(encoding="utf-8"))).files
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def write_journal(folder: Path, manifest: Manifest) -> None:
    """Remember what is done so far; raises :class:`OutputError`."""
    write_whole(folder / JOURNAL, _text(manifest))


def complete(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, which makes the part complete; the journal goes. Raises :class:`OutputError`."""
    write_whole(folder / NAME, _text(manifest))
    with writing(folder / JOURNAL):
        (folder / JOURNAL).unlink(missing_ok=True)


def _text(manifest: Manifest) -> bytes:
    return json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1).encode() + b"\n"


def _parse(data: Mapping[str, Any]) -> Manifest:
    entries = dict(data)
    if entries.pop("format") != FORMAT:
        raise ValueError("it was written by another version of pigeon")
    licence = entries.pop("licence")
    files = tuple(
        StoredFile(**{**file, "origins": tuple(Origin(**one) for one in file["origins"])})
        for file in entries.pop("files")
    )
    return Manifest(**entries, licence=Acceptance(**licence) if licence else None, files=files)
