"""Table of the evaluation protocol (DESIGN.md section 3): ``python tests/benchmarks/quality.py --data DIR --out DIR``.

Prints Markdown; writes requests.jsonl, table.md, table.json, hits.csv, draws/ROW/REQUEST_ID.png and the judge's cache
into --out. Tune on valid; test is for the table of a release.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pigeon_cli.core.errors import UsageError
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.data.requests import (
    TrainingRequest,
    draw_evaluation_requests,
    requests_sha256,
    requests_to_text,
)
from tests.benchmarks.candidates import LOOK_CANDIDATES, MEANING_CANDIDATES, candidate_features, same_meaning
from tests.benchmarks.draws import drawn_by_row, print_result, read_folder, write_text
from tests.benchmarks.judge import CandidateFeatures, Judge, Verdict
from tests.benchmarks.judge_network import JudgeNetwork
from tests.benchmarks.rows import MASKS, ROWS, Context, EvaluationRequest, load_drawer, swap_histories
from tests.benchmarks.table import RowResult, hits_csv, markdown, summary

MODEL_FREE = tuple(row.name for row in ROWS.values() if not row.needs_model)


class Benchmark:
    """Requests, judge and context of one run."""

    def __init__(self, context: Context, requests: Sequence[EvaluationRequest], out: Path) -> None:
        self.context, self.requests, self.out = context, requests, out
        self.network, self.judge = JudgeNetwork(), Judge.load()
        self._known: dict[TrainingRequest, CandidateFeatures] = {}

    def run(self, name: str, baseline: Path | None = None) -> RowResult:
        """Verdicts of one row of ROWS, or of a folder of drawings."""
        start = time.monotonic()
        swapped = baseline is None and ROWS[name].swapped
        asked = swap_histories(self.context.dataset, self.requests) if swapped else list(self.requests)
        if baseline is not None:
            says, drawn = f"drawings in {baseline}", read_folder(baseline, asked)
        else:
            says = ROWS[name].says
            drawn = drawn_by_row(ROWS[name], self.context, asked, self.out / "draws" / name)
        verdicts = tuple(self._verdicts(asked, drawn))
        print(f"{name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
        return RowResult(name, says, verdicts)

    def _verdicts(self, asked: Iterable[EvaluationRequest | None], drawn: Iterable[Any]) -> Iterable[Verdict | None]:
        for request, image in zip(asked, drawn, strict=True):
            if request is None:
                yield None
            elif image is None:
                yield Verdict()
            else:
                yield self.judge.verdict(self.network.features(image), self._candidates(request.request))

    def _candidates(self, request: TrainingRequest) -> CandidateFeatures:
        if request not in self._known:
            self._known[request] = candidate_features(self.context.dataset, request, self.network, self.out / "judge")
        return self._known[request]

    def chance(self) -> dict[str, float]:
        """Percent of hits of a blind guess, over these requests."""
        records = self.context.dataset.records
        counts = [len(same_meaning(self.context.dataset, records[each.request.target])) for each in self.requests]
        style = 100 * sum(1 / count for count in counts) / len(counts)
        meaning = 100 / MEANING_CANDIDATES
        return {"style": style, "look": 100 / LOOK_CANDIDATES, "meaning": meaning, "joint": style * meaning / 100}


def main() -> int:
    """Command line; returns the exit status."""
    return print_result(_run, _parser().parse_args())


def _run(arguments: argparse.Namespace) -> str:
    names, baselines = _names(arguments), _baselines(arguments.baseline)
    dataset = load_dataset(arguments.data)
    drawn = draw_evaluation_requests(
        dataset, arguments.split, arguments.requests, arguments.seed, arguments.held_out_looks, arguments.planted
    )
    requests = [EvaluationRequest.of(dataset, request) for request in drawn]
    write_text(arguments.out / "requests.jsonl", requests_to_text(drawn))
    drawer = load_drawer(arguments.generator) if arguments.generator else None
    context = Context(dataset, arguments.seed, drawer, arguments.dial, arguments.mask)
    benchmark = Benchmark(context, requests, arguments.out)
    results = [benchmark.run(name) for name in names]
    results += [benchmark.run(name, folder) for name, folder in baselines.items()]
    groups = [request.meaning for request in requests]
    about = {
        "split": arguments.split,
        "seed": arguments.seed,
        "held_out_looks": arguments.held_out_looks,
        "planted": arguments.planted,
        "dial": arguments.dial,
        "requests_sha256": requests_sha256(drawn),
    }
    table = summary(results, benchmark.chance(), groups, about)
    text = markdown(table) + "\n" + ", ".join(f"{key} {value}" for key, value in about.items()) + "\n"
    _write_results(arguments.out, table, text, hits_csv(results, [request.id for request in requests], groups))
    return text


def _write_results(out: Path, table: dict[str, Any], text: str, hits: str) -> None:
    write_text(out / "table.json", json.dumps(table, indent=1) + "\n")
    write_text(out / "table.md", text)
    write_text(out / "hits.csv", hits)


def _names(arguments: argparse.Namespace) -> list[str]:
    if arguments.rows:
        names = [name for name in arguments.rows.split(",") if name]
    elif arguments.generator:
        names = [name for name in ROWS if name != f"mask-{arguments.mask}"]
    else:
        names = list(MODEL_FREE)
    if unknown := [name for name in names if name not in ROWS]:
        raise UsageError(f"no such rows: {', '.join(unknown)}", f"choose from {', '.join(ROWS)}")
    return names


def _baselines(values: Sequence[str]) -> dict[str, Path]:
    pairs = [value.partition("=") for value in values]
    if any(not name or not folder or name in ROWS for name, _, folder in pairs):
        raise UsageError("a baseline is NAME=DIR with a name of its own", f"taken names: {', '.join(ROWS)}")
    return {name: Path(folder) for name, _, folder in pairs}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Quality table of the evaluation protocol.")
    parser.add_argument("--data", type=Path, required=True, help="dataset of `pigeon train data`")
    parser.add_argument("--out", type=Path, required=True, help="folder for draws, cache, tables; goes on")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--split", choices=("valid", "test", "unseen"), default="valid")
    parser.add_argument("--held-out-looks", action="store_true", help="looks that training never saw")
    parser.add_argument("--planted", type=int, choices=(0, 1, 2), default=0, help="planted images per history")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--rows", default="", help=f"comma-separated: {', '.join(ROWS)}")
    parser.add_argument("--generator", default="", help="MODULE:FUNCTION that returns the Drawer of rows.py")
    parser.add_argument("--dial", type=float, default=0.2, help="dial of the rows at a fixed dial")
    parser.add_argument("--mask", choices=MASKS, default="learned", help="mask of the rows that name none")
    parser.add_argument("--baseline", action="append", default=[], metavar="NAME=DIR", help="scores DIR/REQUEST_ID.png")
    return parser


if __name__ == "__main__":
    sys.exit(main())
