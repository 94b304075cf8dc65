"""What a download will do, known before the first byte: files, sizes, what is there, and whether it fits."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pigeon_cli.core.errors import OutputError, UsageError
from pigeon_cli.weights.alignment import choose_alignment
from pigeon_cli.weights.cache import PartFolder
from pigeon_cli.weights.catalog import Model, Part
from pigeon_cli.weights.disk import CACHE_VARIABLE, readable
from pigeon_cli.weights.fetch import partial_path
from pigeon_cli.weights.manifest import Manifest, StoredFile
from pigeon_cli.weights.shards import converted_name
from pigeon_cli.weights.sources import Access, Listing, SourceFile, list_source, parse_source

State = Literal["there", "partial", "copy", "fetch"]
RESERVE = 64 << 20
"""Bytes that stay free: journals, locks, and what others write meanwhile."""


@dataclass(frozen=True)
class PlannedFile:
    """One file: ``file`` of the source, at ``place`` below the part's folder."""

    place: str
    file: SourceFile
    state: State
    present: int = 0
    """Bytes that need not be fetched."""
    stored: StoredFile | None = None
    """The record of an earlier run, when its result is there."""

    @property
    def result(self) -> str:
        """The path that later starts read: a pickle becomes safetensors."""
        return converted_name(self.place)

    @property
    def converts(self) -> bool:
        return self.result != self.place

    @property
    def missing(self) -> int:
        """Bytes to fetch; 0 where a source does not tell sizes."""
        return max(0, (self.file.size or 0) - self.present)


@dataclass(frozen=True)
class PartPlan:
    """One part: already complete (``manifest``), or the files of a listing."""

    part: Part
    folder: PartFolder
    source: str
    commit: str = ""
    files: tuple[PlannedFile, ...] = ()
    manifest: Manifest | None = None

    @property
    def missing(self) -> int:
        return sum(file.missing for file in self.files)

    def written(self, keep: bool) -> int:
        """Most bytes that the cache grows by at any moment.

        A pickle and what is made of it are there together; so are all of them with ``keep``.
        """
        pending = [file for file in self.files if file.state != "there"]
        results = sum(file.file.size or 0 for file in pending)
        started = sum(file.present for file in pending if file.state == "partial")
        pickles = [file.file.size or 0 for file in pending if file.converts and file.state != "copy"]
        return results - started + (sum(pickles) if keep else max(pickles, default=0))


@dataclass(frozen=True)
class Plan:
    """Everything that one command will do."""

    model: Model
    parts: tuple[PartPlan, ...]
    needed: int
    """Bytes of disk."""
    free: int

    def check_space(self) -> None:
        """Raises :class:`OutputError` when the cache's disk cannot take it."""
        if self.needed and self.needed + RESERVE > self.free:
            raise OutputError(
                f"{self.model.name} needs {readable(self.needed)} in {self.parts[0].folder.root}, "
                f"where {readable(self.free)} are free",
                f"free some space, or set {CACHE_VARIABLE} to a folder on another disk",
            )


def make_plan(
    model: Model, root: Path, sources: Mapping[str, str], access: Access, keep: bool, note: Callable[[str], None]
) -> Plan:
    """Ask the sources of every part that is not complete.

    ``sources`` replaces, by part name, those of the catalog and those with which an earlier run began.
    Raises :class:`UsageError` for sources that do not fit, :class:`WeightsError` when one cannot be asked or lacks
    files.
    """
    parts = tuple(_plan_part(part, PartFolder(root, part.name), sources, access, note) for part in model.parts)
    return Plan(model, parts, sum(part.written(keep) for part in parts), _free(root))


def named_sources(model: Model, texts: Sequence[str]) -> dict[str, str]:
    """``[PART=]SOURCE`` options by part; raises :class:`UsageError` for a part that the model lacks."""
    names = [part.name for part in model.parts]
    found: dict[str, str] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        if equals and name in names:
            found[name] = rest
        elif len(names) == 1:
            found[names[0]] = text
        else:
            raise UsageError(
                f"--source {text} does not say which part of {model.name} it replaces",
                f"write --source PART=SOURCE with one of: {', '.join(names)}",
            )
    return found


def _plan_part(
    part: Part, folder: PartFolder, sources: Mapping[str, str], access: Access, note: Callable[[str], None]
) -> PartPlan:
    journal, manifest = folder.journal, folder.manifest
    begun = journal.source if journal else part.source
    source = parse_source(sources.get(part.name, begun))
    if manifest is not None:
        if part.name in sources and manifest.source != str(source):
            raise UsageError(
                f"the cache holds {part.name} from {manifest.source}",
                f"to take it from {source}, first type: pigeon download remove {part.name}",
            )
        return PartPlan(part, folder, manifest.source, manifest.commit, manifest=manifest)
    if str(source) == begun != part.source:
        note(f"{part.name}: going on with the source {begun}; --source names another")
    listing = list_source(source, access, note)
    files = tuple(_plan_file(place, file, folder, journal) for place, file in _places(part, listing).items())
    return PartPlan(part, folder, listing.source, listing.commit, files)


def look_again(plan: PartPlan) -> PartPlan:
    """The same plan after the folder may have changed: what is there now."""
    if (manifest := plan.folder.manifest) is not None:
        return replace(plan, files=(), manifest=manifest)
    journal = plan.folder.journal
    files = tuple(_plan_file(planned.place, planned.file, plan.folder, journal) for planned in plan.files)
    return replace(plan, files=files)


def _places(part: Part, listing: Listing) -> dict[str, SourceFile]:
    names = list(listing.files)
    chosen = choose_alignment(names, part.alignment) if part.alignment else {name: name for name in part.choose(names)}
    return {place: listing.files[name] for place, name in chosen.items()}


def _plan_file(place: str, file: SourceFile, folder: PartFolder, journal: Manifest | None) -> PlannedFile:
    stored = journal.stored(file.name, file.identity) if journal else None
    if stored is not None and stored.path == converted_name(place) and folder.has(stored):
        return PlannedFile(place, file, "there", stored.origins[0].bytes, stored)
    if file.local is not None and (file.size is None or file.local.stat().st_size == file.size):
        return PlannedFile(place, file, "copy", file.size or 0)
    part = partial_path(file, folder.path / place)
    if part.is_file():
        return PlannedFile(place, file, "partial", part.stat().st_size)
    return PlannedFile(place, file, "fetch")


def _free(root: Path) -> int:
    """Bytes free where ``root`` is or will be."""
    place = root
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free
