"""Names of the output and writing without halves: a temporary file beside the target, then a rename."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pigeon_cli.core.errors import OutputError
from pigeon_cli.report.terminal import is_unsafe

REPORT_NAME: Final = "report.json"
STEM_BYTES: Final = 120
"""Room for a rank, a suffix and a temporary name within the 255 bytes that file systems give a name."""


def reference_stem(path: Path) -> str:
    """The reference's name without suffix, unsafe characters as ``_``."""
    return _fit("".join("_" if is_unsafe(character) else character for character in path.stem))


def prompt_stem(prompt: str) -> str:
    """Letters and digits of the prompt in lower case, joined by ``-``."""
    return _fit("-".join(re.findall(r"[^\W_]+", prompt.lower())))


def image_names(stem: str, count: int) -> list[str]:
    """``stem-01.png``, ``stem-02.png``, ... by rank."""
    return [f"{stem}-{rank:02d}.png" for rank in range(1, count + 1)]


def prepare(folder: Path, names: Sequence[str], force: bool, inputs: Iterable[Path] = ()) -> None:
    """Proves that ``names`` can be written to ``folder`` and leaves no trace; raises :class:`OutputError`.

    An input is never overwritten, not with ``force`` either.
    """
    try:
        _probe(folder)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write to {folder}: {reason}", "choose another folder with --out") from error
    kept = {os.path.realpath(path) for path in inputs}
    for target in (folder / name for name in names):
        if os.path.realpath(target) in kept:
            raise OutputError(f"{target} is an input and would be overwritten", "choose another folder with --out")
        if target.is_dir():
            raise OutputError(f"{target} is a folder", "choose another folder with --out")
        if not force and os.path.lexists(target):
            raise OutputError(f"{target} exists already", "add --force to replace it, or choose another --out")


def write_all(folder: Path, contents: Sequence[tuple[str, bytes]]) -> list[Path]:
    """Makes ``folder``, writes every file beside its target, then renames them in order; raises :class:`OutputError`.

    A failure or an interruption before the renames leaves none of the files and no temporary one. The last file is
    the one that speaks of the others: an old one is taken away before any of them is replaced.
    """
    staged: list[tuple[Path, Path]] = []
    target = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents:
            target = folder / name
            staged.append((_temporary(target), target))
            _write(staged[-1][0], data)
        for _, target in staged[-1:]:
            target.unlink(missing_ok=True)
        for temporary, target in staged:
            os.replace(temporary, target)
    except OSError as error:
        hint = "free some space or choose another folder with --out"
        raise OutputError(f"cannot write {target}: {error.strerror}", hint) from error
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)
    return [target for _, target in staged]


def _probe(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.lstat(folder)
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    probe = _temporary(nearest / REPORT_NAME)
    try:
        probe.write_bytes(b"")
    finally:
        probe.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def _fit(stem: str) -> str:
    shortened = stem.encode("utf-8")[:STEM_BYTES].decode("utf-8", errors="ignore").strip(" -.")
    return shortened or "pigeon"
