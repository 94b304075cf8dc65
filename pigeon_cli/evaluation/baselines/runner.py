"""What the baselines share: their command line, the loop over requests, and what stands in their folders."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from PIL import Image

from pigeon_cli.core.errors import OutputError, PigeonError
from pigeon_cli.core.evaluation import EvaluationRequest
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.evaluation.pictures import Shown, open_shown
from pigeon_cli.evaluation.requests import read_requests
from pigeon_cli.report.files import write_all
from pigeon_cli.report.overlay import png_bytes

STATUS: Final = "not run with real weights"
"""Goes when somebody has: then the docstrings and this constant are to be changed together."""
RECORD: Final = "baseline.json"


class Drawer(Protocol):
    """A rival with its model loaded."""

    def draw(self, shown: Shown, stream: torch.Generator) -> Image.Image | None:
        """One drawing, one try; ``None`` where the request lacks what this rival goes by."""


@dataclass(frozen=True)
class Baseline:
    """A rival: how its model is loaded, and the options it has beside the common ones."""

    name: str
    says: str
    load: Callable[[argparse.Namespace, torch.device], Drawer]
    options: Callable[[argparse.ArgumentParser], object] = lambda parser: None


def main(baseline: Baseline, arguments: Sequence[str] | None = None) -> int:
    """Command line of ``baseline``: paths on stdout, talk on stderr; returns the exit status."""
    given = _parser(baseline).parse_args(arguments)
    print(f"{baseline.name}: {STATUS}", file=sys.stderr)
    try:
        for path in draw_all(baseline, given):
            print(path)
    except PigeonError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def draw_all(baseline: Baseline, given: argparse.Namespace) -> list[Path]:
    """Draws every request that has no image in ``--out`` yet; raises the errors of :mod:`pigeon_cli.core.errors`.

    Each image is written when it is drawn, so that an interrupted run goes on where it was.
    """
    requests, digest = read_requests(given.requests)
    choices = {
        key: str(value) for key, value in sorted(vars(given).items()) if key not in ("requests", "out", "device")
    }
    record = {"baseline": baseline.name, "status": STATUS, "requests_sha256": digest, "choices": choices}
    _check_record(given.out, record)
    drawer = baseline.load(given, choose_device(given.device).device)
    drawn = [path for request in requests if (path := _draw(drawer, request, given))]
    print(f"{len(drawn)} of {len(requests)} requests drawn", file=sys.stderr)
    return drawn


def _draw(drawer: Drawer, request: EvaluationRequest, given: argparse.Namespace) -> Path | None:
    path: Path = given.out / f"{request.id}.png"
    if path.is_file():
        return path
    stream = torch.Generator().manual_seed(stream_seed(given.seed, "baseline", request.id))
    image = drawer.draw(open_shown(request), stream)
    if image is None:
        print(f"left out, there is nothing to go by: {request.id}", file=sys.stderr)
        return None
    return write_all(given.out, [(path.name, png_bytes(image))])[0]


def _check_record(out: Path, record: dict[str, Any]) -> None:
    """One folder, one setting: images of another would count as this rival's."""
    path = out / RECORD
    if not path.is_file():
        write_all(out, [(RECORD, (json.dumps(record, indent=1) + "\n").encode())])
    elif path.read_text("utf-8", errors="replace") != json.dumps(record, indent=1) + "\n":
        raise OutputError(f"{out} holds drawings of other requests or settings", "choose another folder with --out")


def _parser(baseline: Baseline) -> argparse.ArgumentParser:
    description = f"{baseline.says} ({STATUS})"
    name = f"python -m pigeon_cli.evaluation.baselines.{baseline.name}"
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--requests", type=Path, required=True, help="request file of pigeon evaluate")
    parser.add_argument("--model", type=Path, required=True, help="folder of weights; nothing is fetched")
    parser.add_argument("--out", type=Path, required=True, help="folder for ID.png and baseline.json; goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    baseline.options(parser)
    return parser
