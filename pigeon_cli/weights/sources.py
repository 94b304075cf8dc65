"""Where files come from: a repository of the hub, a folder of Google Drive, or a local folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pigeon_cli.core.errors import UsageError, WeightsError
from pigeon_cli.weights.digests import Digest

FORMS = "a source is hub:REPO, hub:REPO@REVISION, drive:FOLDER-ID, or a local folder"


@dataclass(frozen=True)
class Access:
    """How to reach servers; ``None`` leaves endpoint and token to huggingface_hub and its environment variables."""

    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    offline: bool = False


@dataclass(frozen=True)
class SourceFile:
    """One file of a source: what is known of it before its first byte, and how to get at it."""

    name: str
    """Its path within the source, with ``/``."""
    identity: str
    """Equal for equal content: what was fetched for one identity serves every source with it."""
    size: int | None = None
    digest: Digest | None = None
    local: Path | None = None
    """A copy on this machine that belongs to somebody else: read, never changed or deleted."""
    address: Callable[[], str] | None = field(default=None, repr=False)
    """Gives the URL to ask next; asked anew for every request, as such URLs run out."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Listing:
    """What a source holds."""

    source: str
    files: Mapping[str, SourceFile]
    commit: str = ""
    """The full hash of the revision; empty when the source has none."""


@dataclass(frozen=True)
class Source:
    """A parsed ``--source``; ``kind`` is ``hub``, ``drive`` or ``folder``."""

    kind: str
    name: str
    """Repository, id of the Drive folder, or path."""
    revision: str = ""

    def __str__(self) -> str:
        if self.kind == "folder":
            return self.name
        return f"{self.kind}:{self.name}" + (f"@{self.revision}" if self.revision else "")


def parse_source(text: str) -> Source:
    """Raises :class:`UsageError` for anything but the forms of ``--source``."""
    kind, colon, rest = text.partition(":")
    if colon and kind == "hub":
        name, _, revision = rest.partition("@")
        if 1 <= len([piece for piece in name.split("/") if piece]) <= 2 and not name.startswith("/"):
            return Source("hub", name, revision or "main")
    elif colon and kind == "drive":
        if rest and all(letter.isalnum() or letter in "-_" for letter in rest):
            return Source("drive", rest)
    elif text:
        return Source("folder", str(Path(text).expanduser().absolute()))
    raise UsageError(f"{text!r} is no source", FORMS)


def parse_token(text: str | None) -> str | None:
    """A ``--token`` without the spaces and line ends that copying brings along; ``None`` where nothing is left.

    Raises :class:`UsageError`, which does not quote it, for what no header can hold.
    """
    token = (text or "").strip()
    if not (token.isascii() and token.isprintable()):
        raise UsageError("the token holds signs that no token has", "copy it again from the settings page of the hub")
    return token or None


def list_source(source: Source, access: Access, note: Callable[[str], None]) -> Listing:
    """Ask a source what it holds, telling ``note`` of delays; raises :class:`WeightsError` when it cannot be asked."""
    if source.kind == "hub":
        from pigeon_cli.weights.hub import list_hub

        return list_hub(source, access, note)
    if source.kind == "drive":
        from pigeon_cli.weights.drive import list_drive

        return list_drive(source, access, note)
    return _list_folder(source)


def _list_folder(source: Source) -> Listing:
    folder = Path(source.name)
    if not folder.is_dir():
        raise WeightsError(f"there is no folder {folder}", FORMS)
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name, status = path.relative_to(folder).as_posix(), path.stat()
            identity = f"{path}:{status.st_size}:{status.st_mtime_ns}"
            found[name] = SourceFile(name, identity, status.st_size, local=path)
    return Listing(str(source), found)
