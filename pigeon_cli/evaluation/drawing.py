"""What scripts that draw a row share: their command line, the loop over requests, and what stands in the folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from PIL import Image

from pigeon_cli.core.errors import InputError, OutputError, PigeonError, UsageError
from pigeon_cli.core.evaluation import EvaluationRequest
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.evaluation.pictures import Shown, open_shown
from pigeon_cli.evaluation.requests import read_requests
from pigeon_cli.report.files import write_all
from pigeon_cli.report.overlay import png_bytes
from pigeon_cli.weights.store import find_model

RECORD: Final = "row.json"


class Drawer(Protocol):
    """A program with its model loaded."""

    def draw(self, shown: Shown, stream: torch.Generator) -> Image.Image | None:
        """One drawing, one try; ``None`` where the request lacks what it goes by."""


def model_hashes(model: str) -> dict[str, str | None]:
    """Files of a model of pigeon by name with their SHA-256, as ``report.json`` has them.

    Raises :class:`WeightsError` where there is no such model.
    """
    return {file.name: file.sha256 for file in find_model(model).record().weights}


@dataclass(frozen=True)
class RowMaker:
    """A script: its module's name, how its model is loaded, and the options it has beside the common ones."""

    module: str
    says: str
    load: Callable[[argparse.Namespace, torch.device], Drawer]
    options: Callable[[argparse.ArgumentParser], object] = lambda parser: None
    status: str = ""
    """What has to be known about the drawings; said on stderr and kept beside them."""
    hashes: Callable[[str], Mapping[str, str | None]] = model_hashes
    """From ``--model`` to the hashes of its weights, which tell a model from what stood in its folder before."""


def main(maker: RowMaker, arguments: Sequence[str] | None = None) -> int:
    """Command line of ``maker``: paths on stdout, talk on stderr; returns the exit status."""
    given = _parser(maker).parse_args(arguments)
    if maker.status:
        print(f"{maker.module}: {maker.status}", file=sys.stderr)
    try:
        for path in draw_all(maker, given):
            print(path)
    except PigeonError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def draw_all(maker: RowMaker, given: argparse.Namespace) -> list[Path]:
    """Draws every request that has no image in ``--out`` yet; raises the errors of :mod:`pigeon_cli.core.errors`.

    Each image is written when it is drawn, so that an interrupted run goes on where it was.
    """
    requests, digest = read_requests(given.requests)
    choices = {
        key: str(value) for key, value in sorted(vars(given).items()) if key not in ("requests", "out", "device")
    }
    record = {
        "made_by": maker.module,
        "status": maker.status,
        "requests_sha256": digest,
        "weights": maker.hashes(given.model),
        "choices": choices,
    }
    _check_record(given.out, record)
    drawer = maker.load(given, choose_device(given.device).device)
    drawn = [path for request in requests if (path := _draw(drawer, request, given))]
    print(f"{len(drawn)} of {len(requests)} requests drawn", file=sys.stderr)
    return drawn


def _draw(drawer: Drawer, request: EvaluationRequest, given: argparse.Namespace) -> Path | None:
    path: Path = given.out / f"{request.id}.png"
    if path.is_file():
        return path
    stream = torch.Generator().manual_seed(stream_seed(given.seed, "row", request.id))
    shown = open_shown(request)
    try:
        image = drawer.draw(shown, stream)
    except (InputError, UsageError) as error:
        print(f"failed, a miss: {request.id}: {error.message}", file=sys.stderr)
        return None
    if image is None:
        print(f"left out, there is nothing to go by: {request.id}", file=sys.stderr)
        return None
    return write_all(given.out, [(path.name, png_bytes(image))])[0]


def _check_record(out: Path, record: dict[str, Any]) -> None:
    """One folder, one setting: images of another would count as this row's."""
    path = out / RECORD
    if not path.is_file():
        write_all(out, [(RECORD, (json.dumps(record, indent=1) + "\n").encode())])
    elif path.read_text("utf-8", errors="replace") != json.dumps(record, indent=1) + "\n":
        raise OutputError(
            f"{out} holds drawings of other requests, weights or settings", "choose another folder with --out"
        )


def _parser(maker: RowMaker) -> argparse.ArgumentParser:
    description = f"{maker.says} ({maker.status})" if maker.status else maker.says
    parser = argparse.ArgumentParser(prog=f"python -m {maker.module}", description=description)
    parser.add_argument("--requests", type=Path, required=True, help="request file of pigeon evaluate")
    parser.add_argument("--model", required=True, help="folder of weights; nothing is fetched")
    parser.add_argument("--out", type=Path, required=True, help="folder for ID.png and row.json; goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    maker.options(parser)
    return parser
