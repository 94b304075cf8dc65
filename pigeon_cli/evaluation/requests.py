"""The request file: one JSON object a line, images named by path.

Keys: ``id`` (names the image in every row's folder), ``history`` (a list of paths), ``reference``, ``words`` and
``target`` (a path or text, or null, or left out), and ``group`` (text; requests of one group are resampled together;
left out, every request is a group of its own). Paths are relative to the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pigeon_cli.core.errors import InputError, UsageError
from pigeon_cli.core.evaluation import EvaluationRequest, RowFolder

FILE_NAME: Final = "requests.jsonl"
"""What is read where a folder is named."""
KEYS: Final = frozenset({"id", "history", "reference", "words", "target", "group"})
SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
ID: Final = re.compile(r"[^/\\\0-\x1f.][^/\\\0-\x1f]{0,199}")
"""A file name, and not a hidden one: an id is looked for in folders, and nowhere else."""


def request_file(path: Path) -> Path:
    """``path`` itself, or the request file in that folder."""
    return path / FILE_NAME if path.is_dir() else path


def read_requests(path: Path) -> tuple[list[EvaluationRequest], str]:
    """The requests of a file, or of the folder that holds it, and the file's SHA-256.

    Raises :class:`InputError` that names the line and what is wrong with it. Images are not opened yet.
    """
    try:
        file = request_file(path)
        data = file.read_bytes()
        # JSON strings may hold what else Python takes for the end of a line.
        lines = data.decode("utf-8-sig").split("\n")
    except OSError as error:
        hint = "check its permissions" if isinstance(error, PermissionError) else "give a JSONL file of requests"
        raise InputError(f"cannot read the requests {error.filename or path}: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read the requests {file}: {error}", "give a JSONL file of requests") from error
    requests = [_request(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not requests:
        raise InputError(f"there is no request in {file}", "write one JSON object a line")
    seen: set[str] = set()
    for request in requests:
        if request.id in seen:
            raise InputError(f"{file} has two requests with the id {request.id!r}", "give each an id of its own")
        seen.add(request.id)
    return requests, hashlib.sha256(data).hexdigest()


def read_rows(rows: Sequence[str], baselines: Sequence[str] = ()) -> list[RowFolder]:
    """The folders of ``NAME=DIR``, rows first; raises :class:`UsageError` for another form and for a name twice.

    Raises :class:`InputError` where there is no such folder, or where it may not be read.
    """
    found: list[RowFolder] = []
    for text, baseline in [*((text, False) for text in rows), *((text, True) for text in baselines)]:
        name, _, folder = text.partition("=")
        if not name.strip() or not folder:
            raise UsageError(f"{text!r} does not name a row", "write NAME=DIR, as in --row ours=drawn/")
        if any(row.name == name for row in found):
            raise UsageError(f"two rows have the name {name!r}", "give each a name of its own")
        try:
            there = Path(folder).is_dir()
        except OSError as error:
            raise InputError(f"cannot use {folder}: {error.strerror}", "check the path and its permissions") from error
        if not there:
            raise InputError(f"there is no folder {folder} for the row {name!r}", "check the path after NAME=")
        found.append(RowFolder(name, Path(folder), baseline))
    return found


def image_of(folder: Path, request: EvaluationRequest) -> Path | None:
    """The image that ``folder`` holds for ``request``: its id and a suffix of SUFFIXES, the first that is there."""
    return next((path for suffix in SUFFIXES if (path := folder / f"{request.id}{suffix}").is_file()), None)


def _request(file: Path, number: int, line: str) -> EvaluationRequest:
    try:
        return _parsed(file.parent, json.loads(line))
    except (ValueError, RecursionError) as error:
        hint = (
            'a line looks like {"id": "1", "history": ["a.png"], "reference": "b.png", "words": null, "target": null}'
        )
        raise InputError(f"{file}, line {number}: {error}", hint) from error


def _parsed(base: Path, value: Any) -> EvaluationRequest:
    """The request of a JSON value; ``ValueError`` says what is wrong."""
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    if unknown := sorted(set(value) - KEYS):
        raise ValueError(f"unknown key {unknown[0]!r}")
    name, history = value.get("id"), value.get("history")
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise ValueError(f"the id {name!r} cannot be a file name")
    if not isinstance(history, list) or not all(isinstance(path, str) and path for path in history):
        raise ValueError("history is no list of paths")
    reference, words, target, group = (_text(value, key) for key in ("reference", "words", "target", "group"))
    return EvaluationRequest(
        id=name,
        history=tuple(base / path for path in history),
        reference=base / reference if reference else None,
        words=words or "",
        target=base / target if target else None,
        group=group or name,
    )


def _text(value: dict[str, Any], key: str) -> str | None:
    found = value.get(key)
    if found is not None and not isinstance(found, str):
        raise ValueError(f"{key} is neither text nor null")
    return found
