"""The cache folder: one folder per part of a model, locked while it changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import platformdirs
from filelock import FileLock, Timeout

from pigeon_cli.weights.digests import Digest, Tally, read_into
from pigeon_cli.weights.disk import CACHE_VARIABLE, writing
from pigeon_cli.weights.listener import Listener
from pigeon_cli.weights.manifest import JOURNAL, NAME, Manifest, StoredFile, read_manifest, write_journal

State = Literal["complete", "incomplete", "absent"]


def cache_root() -> Path:
    """``$PIGEON_CACHE``, or the place that the system has for caches."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser().absolute() if named else platformdirs.user_cache_path("pigeon")


@dataclass(frozen=True)
class PartFolder:
    """A part's folder under the cache ``root``, whether or not it exists."""

    root: Path
    part: str

    @property
    def path(self) -> Path:
        return self.root / self.part

    @property
    def sealed(self) -> Manifest | None:
        """The manifest, whatever became of the files since."""
        return read_manifest(self.path / NAME)

    @property
    def manifest(self) -> Manifest | None:
        """The records of a complete part: its manifest, if every file is there in its size."""
        manifest = self.sealed
        return manifest if manifest and all(self.has(file) for file in manifest.files) else None

    @property
    def journal(self) -> Manifest | None:
        """The records of whatever is done, complete or not."""
        return self.sealed or read_manifest(self.path / JOURNAL)

    @property
    def state(self) -> State:
        if self.manifest is not None:
            return "complete"
        return "incomplete" if self.path.is_dir() and any(self.path.iterdir()) else "absent"

    def has(self, file: StoredFile) -> bool:
        """Whether a recorded file is there in its size; its hash is the business of :meth:`verify`."""
        path = self.path / file.path
        return path.is_file() and path.stat().st_size == file.bytes

    @contextmanager
    def locked(self, listener: Listener) -> Iterator[None]:
        """Only one process at a time changes a part; the lock ends with the process, however it ends.

        Raises :class:`OutputError` when the cache cannot be written.
        """
        place = self.root / f".{self.part}.lock"
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(place)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                listener.note(f"another pigeon works on {self.part}; waiting for it")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def verify(self, manifest: Manifest, listener: Listener) -> dict[str, str]:
        """Hash every file again: path to what is wrong with it.

        What is wrong leaves the records, so that the next download fetches it again and nothing else.
        """
        problems = {file.path: problem for file in manifest.files if (problem := self._problem(file, listener))}
        if problems:
            kept = tuple(file for file in manifest.files if file.path not in problems)
            with self.locked(listener), writing(self.path / NAME):
                write_journal(self.path, replace(manifest, files=kept))
                (self.path / NAME).unlink(missing_ok=True)
        return problems

    def remove(self) -> int:
        """Delete the folder, the manifest first, so that what is left is never taken for complete; returns bytes."""
        size = sum(path.lstat().st_size for path in self.path.rglob("*") if path.is_file())
        with writing(self.path):
            (self.path / NAME).unlink(missing_ok=True)
            shutil.rmtree(self.path)
        return size

    def _problem(self, file: StoredFile, listener: Listener) -> str:
        path, tally = self.path / file.path, Tally(Digest("sha256", file.sha256), file.bytes)
        try:
            if not path.is_file():
                return "it is missing"
            return read_into(tally, path, lambda _: listener.progress(file.path, tally.length, file.bytes)).problem
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
