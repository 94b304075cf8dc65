"""An alignment: the three parts that fit a base model to personal taste, in a small folder of their own.

``alignment.json`` is written last; it names the base, the parents and the data by their hashes, so that a folder is
refused with another base, half written, or put together from two runs (issue 5, section 1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.report.files import write_all
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.store import ALIGNED_PARTS, ModelFolder

RECORD_NAME: Final = "alignment.json"
VERSION: Final = 1


@dataclass(frozen=True)
class AlignmentRecord:
    """What ``alignment.json`` says."""

    stage: str
    """``reconstruct`` or ``preferences``."""
    base: str
    """Name of the base model."""
    base_sha256: str
    """SHA-256 of the base language model's weights file."""
    parents: Mapping[str, str]
    """Part to SHA-256: everything frozen that the stage read, and the alignment that it began from."""
    data_sha256: str
    """SHA-256 of what was learned from: the dataset's index, the interactions, or the pairs file."""
    settings: Mapping[str, Any]
    figures: Mapping[str, float]
    """The last of the run."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Part to SHA-256 of the alignment's own files."""
    version: int = VERSION


def write_record(folder: Path, record: AlignmentRecord) -> None:
    """Complete the alignment in ``folder``, whose parts are there; raises :class:`OutputError`."""
    own = {name: sha256_of(ModelFolder(folder).part(name)) for name in ALIGNED_PARTS}
    text = json.dumps({**asdict(record), "files": own}, indent=2, sort_keys=True) + "\n"
    write_all(folder, [(RECORD_NAME, text.encode())])


def read_record(folder: Path) -> AlignmentRecord:
    """The record of a complete alignment; raises :class:`WeightsError` that says what is wrong with ``folder``."""
    path = folder / RECORD_NAME
    if not path.is_file():
        hint = "give a folder that pigeon align wrote to its end with --out; an interrupted one goes on with --resume"
        raise WeightsError(f"{folder} is no alignment: it has no {RECORD_NAME}", hint)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("version") != VERSION:
            raise ValueError(f"it has version {values.get('version')}, this program reads {VERSION}")
        if wrong := {one.name for one in fields(AlignmentRecord)} ^ values.keys():
            raise ValueError(f"the field {min(wrong)!r} is missing or unknown")
        record = AlignmentRecord(**values)
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"cannot read {path}: {error}", "align again, or use the pigeon that wrote it") from error
    for name in ALIGNED_PARTS:
        part = ModelFolder(folder).part(name)
        if not part.is_file() or sha256_of(part) != record.files.get(name):
            raise WeightsError(f"{part} is not the file that {RECORD_NAME} names", "align again, or copy it again")
    return record


def with_alignment(model: ModelFolder, alignment: Path | None) -> ModelFolder:
    """``model`` with the parts of ``alignment``, or as it is without one.

    Raises :class:`WeightsError` where the folder is no complete alignment, or belongs to another base.
    """
    if alignment is None:
        return model
    record = read_record(alignment)
    if record.base_sha256 != sha256_of(model.part("language")):
        raise WeightsError(
            f"the alignment {alignment} was made for another base than the language model of {model.path} "
            f"(it names {record.base}, {record.base_sha256[:12]})",
            "use --model with the base that it was made for, or align this one",
        )
    return ModelFolder(model.path, alignment)
