"""The README's sheet: ``python tests/benchmarks/sheet.py --data DIR --out DIR --row auto --sheet FILE.png``.

One row per request: five history images, the reference, what was drawn, the right answer. Reads the requests and the
draws that quality.py left in --out; takes the first requests in order, never the best.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pigeon_cli.core.errors import InputError
from pigeon_cli.report.sheet import make_sheet
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.data.requests import TrainingRequest, requests_from_text
from tests.benchmarks.draws import print_result, read_picture, save_picture
from tests.benchmarks.rows import Context, EvaluationRequest, to_picture

HEADERS = ("liked 1", "liked 2", "liked 3", "liked 4", "liked 5", "reference", "drawn", "right answer")


def request_sheet(context: Context, requests: Sequence[TrainingRequest], draws: Path, cell: int = 96) -> Image.Image:
    """One row per request; a drawing that is missing leaves a gap."""
    rows: list[list[Image.Image | None]] = []
    captions = []
    for each in requests:
        request = EvaluationRequest.of(context.dataset, each)
        images = context.images(each)
        drawn = read_picture(draws / f"{request.id}.png")
        answer = to_picture(context.answer(each)[0])
        rows.append([*images.history, images.reference, None if drawn is None else to_picture(drawn[0]), answer])
        kinds = " + ".join(each.look.kinds) or "plain"
        captions.append(f"{context.dataset.records[each.target].label} - {each.set}, {kinds}" + _said(each.words))
    return make_sheet(rows, HEADERS, captions, cell)


def _said(words: str) -> str:
    return f' - words: "{words}"' if words else ""


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Sheet of the first requests of a quality run.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of a quality.py run")
    parser.add_argument("--row", default="auto", help="row whose draws are shown")
    parser.add_argument("--sheet", type=Path, required=True, help="PNG to write")
    parser.add_argument("--count", type=int, default=12)
    return print_result(_write, parser.parse_args())


def _write(arguments: argparse.Namespace) -> str:
    path, draws = arguments.out / "requests.jsonl", arguments.out / "draws" / arguments.row
    if not path.is_file() or not draws.is_dir():
        raise InputError(f"no run with a row {arguments.row!r} in {arguments.out}", "run quality.py --out there first")
    requests = requests_from_text(path.read_text(encoding="utf-8"))[: arguments.count]
    context = Context(load_dataset(arguments.data), seed=0)
    save_picture(request_sheet(context, requests, draws), arguments.sheet)
    return f"{arguments.sheet}\n"


if __name__ == "__main__":
    sys.exit(main())
