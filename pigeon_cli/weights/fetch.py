"""One file over HTTP: by ranges into a ``.part`` beside its place, hashed while it is written.

huggingface_hub deletes its partial file in a new process and compares sizes only (DESIGN.md, section 6), hence our own
loop. It can be killed at any byte: whatever the ``.part`` holds is hashed again and continued.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.digests import Tally, read_into
from pigeon_cli.weights.disk import unwritable, writing
from pigeon_cli.weights.listener import Listener
from pigeon_cli.weights.retry import RESUME, PassingFailure, Patience, answer, asking
from pigeon_cli.weights.sources import SourceFile

if TYPE_CHECKING:
    import httpx2

OK: Final = 200
PARTIAL: Final = 206
NO_SUCH_RANGE: Final = 416


def partial_path(file: SourceFile, target: Path) -> Path:
    """Beside ``target``, with the content's identity in the name: never continued with other content."""
    return target.with_name(f"{target.name}.{hashlib.sha256(file.identity.encode()).hexdigest()[:12]}.part")


def fetch(file: SourceFile, target: Path, listener: Listener) -> tuple[Path, Tally]:
    """Have ``file`` whole and right in a ``.part`` beside ``target``, which the caller renames; its size and hash, too.

    Raises :class:`WeightsError` for the network, a wrong size or hash, :class:`OutputError` for the disk. In each case
    the next call goes on where this one ended.
    """
    part = partial_path(file, target)
    with writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
    while True:
        resumed = part.is_file() and part.stat().st_size > 0
        tally = _fill(file, part, listener)
        if not tally.problem:
            return part, tally
        with writing(part):
            part.unlink()
        if not resumed:
            raise WeightsError(
                f"the file {target} is damaged: {tally.problem}",
                f"it was thrown away; {RESUME}. If that happens again, use another --source",
            )
        listener.note(f"{file.name}: what an earlier run left is damaged; starting over")


def _fill(file: SourceFile, part: Path, listener: Listener) -> Tally:
    """Append to ``part`` until the server says that it is whole."""
    tally = Tally(file.digest, file.size)
    patience = Patience(file.name, listener.note)
    try:
        # Unbuffered: what was counted is in the file, and closing it has nothing left to fail on.
        stream = part.open("ab", buffering=0)
    except OSError as error:
        raise unwritable(part, error) from error
    with stream:
        read_into(tally, part, lambda _: listener.progress(file.name, tally.length, file.size))
        receiver = _Receiver(file, part, stream, tally, listener)
        whole = False
        while not whole:
            before = tally.length
            try:
                whole = receiver.receive()
            except PassingFailure as failure:
                if tally.length > before:
                    patience.restart()
                patience.wait(failure)
        with writing(part):
            os.fsync(stream.fileno())
    return tally


@dataclass
class _Receiver:
    """One ``.part`` being filled; ``tally`` has seen every byte of it."""

    file: SourceFile
    part: Path
    stream: FileIO
    tally: Tally
    listener: Listener

    def receive(self) -> bool:
        """One request; ``True`` when the file is whole. Raises :class:`PassingFailure` when another may help."""
        file, tally = self.file, self.tally
        if file.size is not None and tally.length >= file.size:
            return True
        if file.address is None:
            raise WeightsError(f"cannot fetch {file.name}: its copy in {file.local} is damaged", "check --source")
        headers = {**file.headers, "Accept-Encoding": "identity"}
        if tally.length:
            headers["Range"] = f"bytes={tally.length}-"
        with asking(file.name, file.address(), headers) as response:
            total = self._begin(response)
            pieces = response.iter_raw()
            # A server that sends more than it should is not listened to for ever.
            while total is None or tally.length < total:
                if (piece := next(pieces, None)) is None:
                    break
                self._append(piece, total)
        if total is not None and tally.length < total:
            raise PassingFailure(f"it broke off after {tally.length} of {total} bytes")
        return True

    def _begin(self, response: httpx2.Response) -> int | None:
        """The file's size in bytes, as far as it is known; starts over when the answer does not continue ours."""
        status, length = response.status_code, self.tally.length
        html = response.headers.get("Content-Type", "").startswith("text/html")
        if html and status in (OK, PARTIAL) and self.file.digest is None:
            # No hash would show that it is not the file.
            raise WeightsError(
                f"cannot fetch {self.file.name}: the server sent a web page instead",
                "try again tomorrow, or fetch it in a browser and pass its folder as --source",
            )
        if status == NO_SUCH_RANGE and length:
            if self.file.size is None and _number(response.headers, "Content-Range", r"bytes \*/(\d+)") == length:
                return length
            self._start_over()
            raise PassingFailure("what an earlier run left does not fit")
        if status == OK:
            if length:
                self._start_over()
            total = _number(response.headers, "Content-Length", r"(\d+)")
        elif status == PARTIAL and _number(response.headers, "Content-Range", r"bytes (\d+)-.*") == length:
            total = _number(response.headers, "Content-Range", r"bytes .*/(\d+)")
        else:
            raise answer(status, response.headers, self.file.name)
        if None not in (self.file.size, total) and total != self.file.size:
            raise WeightsError(
                f"cannot fetch {self.file.name}: the server has {total} bytes of it, its list says {self.file.size}",
                f"the source is changing or damaged; later {RESUME}",
            )
        return total if self.file.size is None else self.file.size

    def _start_over(self) -> None:
        self.tally.restart()
        with writing(self.part):
            self.stream.truncate(0)

    def _append(self, piece: bytes, total: int | None) -> None:
        rest = memoryview(piece)
        with writing(self.part):
            while rest:
                rest = rest[self.stream.write(rest) :]
        self.tally.update(piece)
        self.listener.progress(self.file.name, self.tally.length, total)


def _number(headers: Mapping[str, str], name: str, pattern: str) -> int | None:
    found = re.fullmatch(pattern, headers.get(name, ""))
    return int(found[1]) if found else None
