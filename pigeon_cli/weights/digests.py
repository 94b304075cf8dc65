"""Hashes of files: counted while bytes pass by, and compared with what a server claims."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Digest:
    """What a file's hash should be. Small files of the hub have git's hash of a blob instead of a sha256."""

    kind: Literal["sha256", "git-sha1"]
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


class Tally:
    """Counts and hashes bytes in the order in which they come.

    Git hashes the size before the content, so ``size`` (bytes) must be known for such a ``wanted``.
    """

    def __init__(self, wanted: Digest | None, size: int | None) -> None:
        self._wanted = wanted
        self._size = size
        self.restart()

    def restart(self) -> None:
        """Forget what came so far."""
        self.length = 0
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % (self._size or 0), usedforsecurity=False)

    def update(self, data: bytes) -> None:
        self.length += len(data)
        self._sha256.update(data)
        if self._wanted is not None and self._wanted.kind == "git-sha1":
            self._git.update(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def problem(self) -> str:
        """What is wrong with the bytes so far, taken as the whole file; empty when nothing is."""
        if self._size is not None and self.length != self._size:
            return f"it has {self.length} bytes instead of {self._size}"
        if self._wanted is None:
            return ""
        found = self.sha256 if self._wanted.kind == "sha256" else self._git.hexdigest()
        return (
            "" if found == self._wanted.value else f"its {self._wanted.kind} is {found} instead of {self._wanted.value}"
        )


def read_into(tally: Tally, path: Path, also: Callable[[bytes], object] = len) -> Tally:
    """Pass a file through ``tally`` and, piece by piece, to ``also``."""
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK):
            tally.update(piece)
            also(piece)
    return tally
