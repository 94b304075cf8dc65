"""What the download commands say: models on the shelf, plans, licences, as lines and as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pigeon_cli.cli.talk import emit, print_note
from pigeon_cli.core.errors import WeightsError

if TYPE_CHECKING:
    from pigeon_cli.weights.cache import PartFolder
    from pigeon_cli.weights.catalog import Licence, Model
    from pigeon_cli.weights.plan import PartPlan, Plan


def show(as_json: bool, document: Any, lines: Sequence[str]) -> None:
    """Data on stdout: the document, or the lines."""
    text = json.dumps(document, indent=1) + "\n" if as_json else "".join(f"{line}\n" for line in lines)
    emit(os.fsencode(text))


def about(model: Model) -> str:
    """How much there is to fetch, as far as the catalog knows."""
    from pigeon_cli.weights.disk import readable

    if not model.parts:
        return "-"
    return readable(model.bytes) if model.bytes else "?"


def find_folders(name: str) -> tuple[Model, list[PartFolder]]:
    """A model and its folders, whether or not they are there; a bundled model has none."""
    from pigeon_cli.weights.cache import PartFolder, cache_root
    from pigeon_cli.weights.catalog import load_catalog

    model = load_catalog().model(name)
    return model, [PartFolder(cache_root(), part.name) for part in model.parts]


def other_users(model: Model, part: str) -> list[str]:
    """The complete combinations, other than ``model``, that need ``part``."""
    from pigeon_cli.weights.catalog import load_catalog

    others = [other for other in load_catalog().models.values() if len(other.parts) > 1 and other.name != model.name]
    return [
        other.name
        for other in others
        if part in [needed.name for needed in other.parts] and model_state(other) == "complete"
    ]


def model_state(model: Model) -> str:
    """``bundled``, ``complete``, ``incomplete`` (some of it is there) or ``absent``."""
    states = {folder.state for folder in find_folders(model.name)[1]}
    if not states:
        return "bundled"
    return states.pop() if len(states) == 1 else "incomplete"


def bundled_folder(model: Model) -> str:
    """Where the package keeps a bundled model."""
    from pigeon_cli.weights.store import find_model

    return str(find_model(model.name).path)


def not_complete(model: Model, folder: PartFolder) -> WeightsError:
    """The error of a command that needs a complete model."""
    what = "is not in the cache" if folder.state == "absent" else "is not complete; what is there is kept and resumed"
    return WeightsError(f"{folder.part} {what} ({folder.path})", f"type: pigeon download {model.name}")


def model_document(model: Model) -> dict[str, Any]:
    """One model as JSON: what it is, where its parts are and what is known of them."""
    parts = []
    for part, folder in zip(model.parts, find_folders(model.name)[1], strict=True):
        manifest = folder.manifest
        parts.append(
            {
                "part": part.name,
                "state": folder.state,
                "path": str(folder.path),
                "source": manifest.source if manifest else part.source,
                "commit": manifest.commit if manifest else "",
                "bytes": manifest.bytes if manifest else part.bytes,
                "licence": part.licence.name if part.licence else "",
            }
        )
    path = {} if parts else {"path": bundled_folder(model)}
    return {"model": model.name, "state": model_state(model), "summary": model.summary, **path, "parts": parts}


def plan_document(plan: Plan) -> dict[str, Any]:
    """A plan as JSON; sizes in bytes, ``null`` where a source does not tell them."""
    parts = [
        {
            "part": part.part.name,
            "complete": part.manifest is not None,
            "path": str(part.folder.path),
            "source": part.source,
            "commit": part.commit,
            "files": [
                {"path": file.place, "bytes": file.file.size, "present": file.present, "state": file.state}
                for file in part.files
            ],
        }
        for part in plan.parts
    ]
    return {"model": plan.model.name, "needed": plan.needed, "free": plan.free, "parts": parts}


def plan_lines(plan: Plan) -> list[str]:
    """One line a file: what will be done, bytes, path."""
    return [
        f"{file.state}\t{'?' if file.file.size is None else file.file.size}\t{part.folder.path / file.place}"
        for part in plan.parts
        for file in part.files
    ]


def say_plan(plan: Plan) -> None:
    """Sizes and free space on stderr, before the first byte."""
    from pigeon_cli.weights.disk import readable

    for part in plan.parts:
        print_note(_part_line(part))
    if any(part.manifest is None for part in plan.parts):
        root = plan.parts[0].folder.root
        print_note(f"disk: {readable(plan.needed)} needed at most, {readable(plan.free)} free in {root}")


def _part_line(plan: PartPlan) -> str:
    from pigeon_cli.weights.disk import readable

    commit = f", commit {plan.commit[:12]}" if plan.commit else ""
    if plan.manifest is not None:
        return f"{plan.part.name}: complete in {plan.folder.path} (from {plan.source}{commit})"
    there = sum(file.present for file in plan.files)
    unknown = sum(file.file.size is None for file in plan.files)
    sizes = f"{readable(plan.missing)} to fetch" + (f", {readable(there)} there already" if there else "")
    more = f", {unknown} of unknown size" if unknown else ""
    return f"{plan.part.name}: {len(plan.files)} files from {plan.source}{commit}, {sizes}{more}"


def ask_consent(plan: Plan, accepted: bool) -> bool:
    """Show the licences of what is to be fetched; whether those that need it are accepted, by flag or at a prompt."""
    from pigeon_cli.weights.download import unaccepted

    pending = [part.part.licence for part in plan.parts if part.manifest is None and part.part.licence]
    for licence in dict.fromkeys(pending):
        _say_licence(licence)
    if accepted or not unaccepted(plan):
        return True
    if any(stream is None or not stream.isatty() for stream in (sys.stdin, sys.stderr)):
        return False
    # Not typer.confirm, which writes a blank to stdout, where the data goes.
    print_note("Do you accept? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say_licence(licence: Licence) -> None:
    print_note(f"licence: {licence.name}")
    print_note(f"  {licence.notice}")
    print_note(f"  {licence.link}")
    for duty in licence.duties:
        print_note(f"  - {duty}")
