"""Writing to the cache: complete or not at all, and errors that name the file and say that nothing is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pigeon_cli.core.errors import OutputError

CACHE_VARIABLE: Final = "PIGEON_CACHE"
TEMPORARY: Final = ".new"
LEFT_OVER: Final = (f".*{TEMPORARY}", ".tmp??????")
"""Names of what a killed process was making: ours, and those under which safetensors writes before it renames."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an ``OSError`` within into :class:`OutputError` about ``path``."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> OutputError:
    """What the user reads: a full disk asks for something else than a folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = f"free some space and run the same command again: what is there is resumed; or set {CACHE_VARIABLE}"
    else:
        hint = f"make the cache folder writable, or set {CACHE_VARIABLE} to another one; what is there is kept"
    return OutputError(f"cannot write {path}: {error.strerror or error}", hint)


def write_whole(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, through a temporary file beside it; raises :class:`OutputError`."""
    temporary = temporary_beside(path)
    with writing(path):
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """Where a file is made that will be renamed to ``path``."""
    return path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")


def remove_temporaries(folder: Path) -> None:
    """Delete what killed processes were making; ask for the folder's lock first. Raises :class:`OutputError`."""
    with writing(folder):
        for pattern in LEFT_OVER:
            for path in folder.rglob(pattern):
                path.unlink()


def readable(count: int) -> str:
    """Bytes for people, in powers of ten."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        # From here on three digits of the smaller unit would round up to 1e+03.
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a loss of power; a no-op where folders cannot be opened."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
