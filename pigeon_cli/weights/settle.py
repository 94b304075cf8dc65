"""One file on its way from its source to its final form in the cache: obtained, verified, converted, recorded."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.digests import Tally, read_into
from pigeon_cli.weights.disk import sync_folder, writing
from pigeon_cli.weights.fetch import fetch, partial_path
from pigeon_cli.weights.listener import Listener
from pigeon_cli.weights.manifest import Manifest, Origin, StoredFile, write_journal
from pigeon_cli.weights.plan import PlannedFile
from pigeon_cli.weights.shards import INDEX
from pigeon_cli.weights.sources import SourceFile


def settle(planned: PlannedFile, journal: Manifest, folder: Path, keep_original: bool, listener: Listener) -> Manifest:
    """Have one file in its final form below ``folder``; returns the journal, written, that records it.

    Raises :class:`WeightsError` (network, hash, format) and :class:`OutputError` (disk).
    """
    source, tally = _obtain(planned, folder / planned.place, listener)
    target = folder / planned.result
    if planned.converts:
        try:
            _convert(planned.place, source, target, listener)
        except WeightsError:
            # Where a server tells no hash, the fetch may be to blame: the next run is not to meet the same bytes.
            if source != planned.file.local and planned.file.digest is None:
                with writing(source):
                    source.unlink()
            raise
        result = read_into(Tally(None, None), target)
    else:
        result = tally
        # So that the record about to be written never speaks of an older file.
        with writing(target):
            target.unlink(missing_ok=True)
    origin = Origin(planned.file.name, tally.length, tally.sha256, planned.file.identity)
    record = StoredFile(planned.result, result.length, result.sha256, (origin,))
    journal = replace(journal, files=(*journal.files, record))
    write_journal(folder, journal)
    if source != planned.file.local:
        with writing(target):
            _put_away(source, folder / planned.place, keep=keep_original or not planned.converts)
    return journal


def _put_away(part: Path, place: Path, keep: bool) -> None:
    if keep:
        part.replace(place)
    else:
        part.unlink()
    sync_folder(place.parent)


def _obtain(planned: PlannedFile, place: Path, listener: Listener) -> tuple[Path, Tally]:
    """The file's content, verified: a ``.part`` of ours, or, if it only gets converted, the local copy itself."""
    file = planned.file
    if planned.state == "copy" and file.local is not None:
        tally = _read(file, file.local, listener)
        if not tally.problem:
            return (file.local if planned.converts else _take(file, file.local, tally, place)), tally
        if file.address is None:
            raise WeightsError(f"the file {file.local} is damaged: {tally.problem}", "get it again, then repeat this")
        listener.warn(f"the copy {file.local} is damaged ({tally.problem}); fetching it instead")
    return fetch(file, place, listener)


def _read(file: SourceFile, path: Path, listener: Listener) -> Tally:
    tally = Tally(file.digest, file.size)
    try:
        return read_into(tally, path, lambda _: listener.progress(file.name, tally.length, file.size))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}", "check --source") from error


def _take(file: SourceFile, local: Path, tally: Tally, place: Path) -> Path:
    """A ``.part`` with the content of ``local``: a link into the hub's cache, whose files never change, else a copy."""
    part = partial_path(file, place)
    with writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        if file.digest is not None:
            # Not on another disk, nor where the file system knows no links.
            with contextlib.suppress(OSError):
                os.link(local.resolve(), part)
                return part
        with part.open("wb") as stream:
            copied = read_into(Tally(None, None), local, stream.write)
            stream.flush()
            os.fsync(stream.fileno())
    if copied.sha256 != tally.sha256:
        raise WeightsError(f"the file {local} changed while it was read", "run the same command again")
    return part


def _convert(place: str, source: Path, target: Path, listener: Listener) -> None:
    # torch takes seconds to load, and most faults show before anything is converted.
    from pigeon_cli.weights.convert import convert_index, convert_pickle

    listener.note(f"{place}: converting")
    if place.endswith(INDEX):
        convert_index(source, target)
    else:
        convert_pickle(source, target)
