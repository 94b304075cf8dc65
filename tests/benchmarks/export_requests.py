"""The protocol's requests for any program: ``python -m tests.benchmarks.export_requests --data DIR --out DIR``.

Writes requests.jsonl, as ``pigeon evaluate`` and the baselines read it, and the PNGs that it names: what the user shows
(history under its look, plain reference) and the right answer. Ids are those of quality.py, so that ``draws/ROW`` of
its --out is a row here, and a folder drawn from here is a --baseline there. Meanings are the groups of the bootstrap.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pigeon_cli.evaluation.requests import FILE_NAME
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.data.requests import draw_evaluation_requests
from tests.benchmarks.draws import print_result, save_picture, write_text
from tests.benchmarks.rows import Context, EvaluationRequest, to_picture


def export(context: Context, request: EvaluationRequest, out: Path) -> dict[str, Any]:
    """Writes the pictures of ``request`` below ``out``; returns its line of the request file."""
    images = context.images(request.request)
    pictures = {f"liked-{place}": image for place, image in enumerate(images.history, 1)}
    pictures |= {"reference": images.reference, "target": to_picture(context.answer(request.request)[0])}
    names = {name: f"images/{request.id}/{name}.png" for name in pictures}
    for name, picture in pictures.items():
        save_picture(picture, out / names[name])
    return {
        "id": request.id,
        "history": [names[name] for name in names if name.startswith("liked")],
        "reference": names["reference"],
        "words": request.words or None,
        "target": names["target"],
        "group": request.meaning,
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Requests of the evaluation protocol as files.")
    parser.add_argument("--data", type=Path, required=True, help="dataset of `pigeon train data`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--split", choices=("valid", "test", "unseen"), default="valid")
    parser.add_argument("--held-out-looks", action="store_true", help="looks that training never saw")
    parser.add_argument("--seed", type=int, default=2026)
    return print_result(_export_all, parser.parse_args(arguments))


def _export_all(given: argparse.Namespace) -> str:
    dataset = load_dataset(given.data)
    context = Context(dataset, given.seed)
    drawn = draw_evaluation_requests(dataset, given.split, given.requests, given.seed, given.held_out_looks)
    lines = [json.dumps(export(context, EvaluationRequest.of(dataset, each), given.out)) + "\n" for each in drawn]
    write_text(given.out / FILE_NAME, "".join(lines))
    return f"{given.out / FILE_NAME}\n"


if __name__ == "__main__":
    sys.exit(main())
