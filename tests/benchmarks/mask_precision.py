"""Does the mask drop what does not fit? ``python tests/benchmarks/mask_precision.py --data DIR --generator M:F``.

Requests with planted images of another set and look; exactly floor(0.2 n) history tokens dropped. Printed: share of the
dropped tokens that are planted, next to their share among all tokens, which is chance (DESIGN.md section 3, "Mask").
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.data.requests import draw_evaluation_requests, requests_sha256
from tests.benchmarks.draws import print_result
from tests.benchmarks.rows import MASKS, Context, DroppedTokens, EvaluationRequest, MaskKind, load_drawer
from tests.benchmarks.table import Share, paired_bootstrap

KINDS: tuple[MaskKind, ...] = tuple(kind for kind in MASKS if kind != "off")
MASK_TENTHS = 2
"""The history mask of 0.2, in tenths so that floor(0.2 n) is exact."""


@dataclass(frozen=True)
class MaskFigure:
    """Of one request: share of its dropped tokens that are planted, and of all its tokens."""

    planted: float
    chance: float


def mask_figure(found: DroppedTokens, planted: Sequence[int]) -> MaskFigure:
    """Figure of one request whose images at the positions ``planted`` are planted.

    Raises ValueError unless exactly floor(0.2 n) different, existing tokens were dropped.
    """
    total = sum(found.tokens)
    if len(set(found.dropped)) != len(found.dropped) or len(found.dropped) != MASK_TENTHS * total // 10:
        raise ValueError(f"{len(found.dropped)} tokens dropped, expected {MASK_TENTHS * total // 10} different ones")
    if any(not (0 <= image < len(found.tokens) and 0 <= token < found.tokens[image]) for image, token in found.dropped):
        raise ValueError("a dropped token does not exist")
    if not found.dropped:
        raise ValueError("fewer than five history tokens: nothing to drop")
    hits = sum(image in planted for image, _ in found.dropped)
    return MaskFigure(hits / len(found.dropped), sum(found.tokens[place] for place in planted) / total)


def mask_shares(figures: Sequence[MaskFigure], groups: Sequence[str]) -> tuple[Share, Share]:
    """Mean percent of planted among dropped, and its difference from chance, with bootstrap intervals by meaning."""
    planted = [figure.planted for figure in figures]
    chance = [figure.chance for figure in figures]
    return paired_bootstrap(planted, [0.0] * len(planted), groups), paired_bootstrap(planted, chance, groups)


def measure(context: Context, requests: Sequence[EvaluationRequest], kind: MaskKind) -> list[MaskFigure]:
    """Figures of one kind of mask on all requests."""
    return [
        mask_figure(
            context.model().mask(request, context.images(request.request), kind),
            [image.position for image in request.request.planted],
        )
        for request in requests
    ]


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Share of dropped history tokens that are planted.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--generator", required=True, help="MODULE:FUNCTION that returns the Drawer of rows.py")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--split", choices=("valid", "test", "unseen"), default="valid")
    parser.add_argument("--planted", type=int, choices=(1, 2), default=1)
    parser.add_argument("--seed", type=int, default=2026)
    return print_result(_table, parser.parse_args())


def _table(arguments: argparse.Namespace) -> str:
    dataset = load_dataset(arguments.data)
    drawn = draw_evaluation_requests(
        dataset, arguments.split, arguments.requests, arguments.seed, planted=arguments.planted
    )
    requests = [EvaluationRequest.of(dataset, request) for request in drawn]
    context = Context(dataset, arguments.seed, load_drawer(arguments.generator))
    groups = [request.meaning for request in requests]
    lines = ["| mask | % of dropped tokens that are planted | chance | above chance |", "|---|---|---|---|"]
    for kind in KINDS:
        figures = measure(context, requests, kind)
        share, above = mask_shares(figures, groups)
        chance = 100 * sum(figure.chance for figure in figures) / len(figures)
        lines.append(f"| {kind} | {share} | {chance:.0f} | {above} |")
    about = f"split {arguments.split}, seed {arguments.seed}, planted {arguments.planted}"
    return "\n".join([*lines, "", f"{about}, requests_sha256 {requests_sha256(drawn)}", ""])


if __name__ == "__main__":
    sys.exit(main())
