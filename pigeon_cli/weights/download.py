"""The story of a download: plan, licence, space, then file by file fetch, verify, convert; the manifest comes last.

Source: issue 4, section 2. Killed at any point, the next run finds in journal and ``.part`` files what is done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.catalog import Licence
from pigeon_cli.weights.digests import Tally, read_into
from pigeon_cli.weights.disk import remove_temporaries, writing
from pigeon_cli.weights.listener import Listener
from pigeon_cli.weights.manifest import NAME, Acceptance, Manifest, StoredFile, complete, write_journal
from pigeon_cli.weights.plan import PartPlan, Plan, look_again
from pigeon_cli.weights.settle import settle


@dataclass(frozen=True)
class Settings:
    """How a plan is carried out."""

    accepted: bool = False
    """Whether the licences of :func:`unaccepted` are accepted now."""
    keep_originals: bool = False


def unaccepted(plan: Plan) -> list[Licence]:
    """The licences to accept before the first byte; what an earlier run recorded counts."""
    pending = [part for part in plan.parts if part.manifest is None and _asks(part) and not _recorded(part)]
    return list(dict.fromkeys(part.part.licence for part in pending if part.part.licence is not None))


def carry_out(plan: Plan, settings: Settings, listener: Listener) -> list[Manifest]:
    """Complete every part; returns their manifests in the order of the plan.

    Raises :class:`WeightsError` (licence, network, hash, format) and :class:`OutputError` (disk), after which the same
    call goes on where this one stopped.
    """
    if not settings.accepted and (licences := unaccepted(plan)):
        raise WeightsError(
            f"{plan.model.name} comes under a licence that is not accepted: {licences[0].name}",
            f"read {licences[0].link}, then add --accept-license",
        )
    plan.check_space()
    for part in plan.parts:
        _warn_of_commit(part, listener)
    return [part.manifest or _complete_part(part, settings, listener) for part in plan.parts]


def _asks(plan: PartPlan) -> bool:
    return plan.part.licence is not None and plan.part.licence.accept


def _recorded(plan: PartPlan) -> Acceptance | None:
    journal, licence = plan.folder.journal, plan.part.licence
    recorded = journal.licence if journal else None
    return recorded if recorded and licence and recorded.name == licence.name else None


def _warn_of_commit(plan: PartPlan, listener: Listener) -> None:
    expected = plan.part.commit
    if plan.source == plan.part.source and not plan.commit.startswith(expected):
        listener.warn(
            f"{plan.source} is now at commit {plan.commit[:12] or 'unknown'}; pigeon was made for {expected}. "
            "Its files may have changed"
        )


def _complete_part(plan: PartPlan, settings: Settings, listener: Listener) -> Manifest:
    folder = plan.folder
    with folder.locked(listener):
        remove_temporaries(folder.path)
        # Another process may have done some of it, or all, while this one waited.
        plan = look_again(plan)
        if plan.manifest is not None:
            return plan.manifest
        with writing(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
        stored = tuple(file.stored for file in plan.files if file.stored is not None)
        journal = Manifest(plan.part.name, plan.source, plan.commit, _acceptance(plan), stored)
        write_journal(folder.path, journal)
        with writing(folder.path / NAME):
            (folder.path / NAME).unlink(missing_ok=True)
        for file in plan.files:
            if file.state != "there":
                journal = settle(file, journal, folder.path, settings.keep_originals, listener)
        if plan.part.alignment:
            journal = _pack(plan, journal, listener)
        complete(folder.path, journal)
        kept = {file.place for file in plan.files} if settings.keep_originals else set()
        _sweep(folder.path, {NAME, *(file.path for file in journal.files), *kept})
    return journal


def _pack(plan: PartPlan, journal: Manifest, listener: Listener) -> Manifest:
    """Make one file of the pieces of an alignment, and one of its settings; returns what the manifest will say.

    The journal on disk goes on to speak of the pieces: until the manifest is there, they are what a next run needs.
    """
    from pigeon_cli.weights.published_alignment import PACKED_SETTINGS, PACKED_WEIGHTS, find_alignment, pack

    folder = plan.folder.path
    listener.note(f"{PACKED_WEIGHTS}: putting the pieces together")
    # Left by a run that ended here, it would be found instead of the pieces.
    with writing(folder):
        (folder / PACKED_WEIGHTS).unlink(missing_ok=True)
    try:
        pack(find_alignment(folder), folder)
    except WeightsError:
        # Any piece without a hash may be another file than it seems: the next run fetches these again.
        unproven = {file.result for file in plan.files if file.file.digest is None}
        kept = tuple(file for file in journal.files if file.path not in unproven)
        write_journal(folder, replace(journal, files=kept))
        raise
    origins = tuple(origin for file in journal.files for origin in file.origins)
    tallies = {name: read_into(Tally(None, None), folder / name) for name in (PACKED_WEIGHTS, PACKED_SETTINGS)}
    records = (StoredFile(name, tally.length, tally.sha256, origins) for name, tally in tallies.items())
    return replace(journal, files=tuple(records))


def _acceptance(plan: PartPlan) -> Acceptance | None:
    licence = plan.part.licence
    if licence is None or not _asks(plan):
        return None
    return _recorded(plan) or Acceptance(licence.name, licence.link, datetime.now(UTC).isoformat(timespec="seconds"))


def _sweep(folder: Path, wanted: set[str]) -> None:
    """Delete what the manifest does not speak of: pieces, parts of other content, files of another source."""
    with writing(folder):
        for path in folder.rglob("*"):
            if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
                path.unlink()
