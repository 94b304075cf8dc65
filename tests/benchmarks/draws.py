"""Draws of one row on disk: one PNG per request, made once, so that an interrupted run goes on where it was."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pigeon_cli.core.errors import PigeonError, UsageError
from tests.benchmarks.rows import Context, EvaluationRequest, Row


def drawn_by_row(
    row: Row, context: Context, requests: Sequence[EvaluationRequest | None], folder: Path
) -> Iterator[Tensor | None]:
    """Float [1, 3, H, W] per request, from ``folder`` or drawn into it; None for a failure, which is a miss."""
    _check_settings(row, context, len(requests), folder)
    for request in requests:
        if request is None:
            yield None
            continue
        path = folder / f"{request.id}.png"
        if not path.exists():
            try:
                save_picture(row.draw(context, request), path)
            except UsageError:
                raise
            except PigeonError as error:
                print(f"{row.name}: {request.id} failed, a miss: {error.message}", file=sys.stderr)
        yield read_picture(path)


def print_result(work: Callable[[argparse.Namespace], str], arguments: argparse.Namespace) -> int:
    """Print what ``work`` makes of a benchmark's arguments; returns the exit status, a PigeonError said on stderr."""
    try:
        print(work(arguments), end="")
    except PigeonError as error:
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def read_folder(folder: Path, requests: Sequence[EvaluationRequest | None]) -> Iterator[Tensor | None]:
    """The same from PNG files that any other program made; UsageError when ``folder`` is none."""
    if not folder.is_dir():
        raise UsageError(f"no folder of draws: {folder}", "give --baseline NAME=DIR with files named REQUEST_ID.png")
    for request in requests:
        yield None if request is None else read_picture(folder / f"{request.id}.png")


def read_picture(path: Path) -> Tensor | None:
    """Float [1, 3, H, W] over white, or None (said on stderr) when there is no readable PNG."""
    try:
        with Image.open(path, formats=("PNG",)) as file:
            picture = file.convert("RGBA")
    except (OSError, ValueError, SyntaxError) as error:
        print(f"no drawing, a miss: {path} ({type(error).__name__})", file=sys.stderr)
        return None
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return torch.from_numpy(np.array(white.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def save_picture(picture: Image.Image, path: Path) -> None:
    """PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".part{os.getpid()}")
    picture.save(partial, format="PNG")
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Text, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".part{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _check_settings(row: Row, context: Context, requests: int, folder: Path) -> None:
    settings: Mapping[str, Any] = {"row": row.name, "seed": context.seed}
    if row.swapped:
        # Whose history the last ones get depends on who else there is.
        settings = {**settings, "requests": requests}
    if row.needs_model:
        fingerprint = context.model().fingerprint
        settings = {**settings, "dial": context.dial, "mask": context.mask, "fingerprint": fingerprint}
    path = folder / "row.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise UsageError(f"{folder} holds draws of other settings or weights", "use another --out or remove it")
    write_text(path, json.dumps(settings, sort_keys=True) + "\n")
