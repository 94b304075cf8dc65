"""Three rows for the README: ``python tests/benchmarks/showcase.py --data DIR --sheet FILE.png``.

A text prompt, one reference under two histories, and the dial, drawn on the first valid request that has words and a
second user whose set has its meaning: the first in order, never the best. PIGEON_MODEL names another model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.report.sheet import make_sheet
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.data.requests import draw_evaluation_requests
from tests.benchmarks.dial import DIALS
from tests.benchmarks.draws import print_result, save_picture
from tests.benchmarks.pigeon_drawer import COMMAND_COUNT, PigeonDrawer, bundled
from tests.benchmarks.rows import Context, EvaluationRequest, RequestImages, swap_histories, to_picture

Cells = list[Image.Image | None]


class Showcase:
    """Draws with ``drawer`` at the command's defaults."""

    def __init__(self, context: Context, drawer: PigeonDrawer) -> None:
        self.context, self.drawer = context, drawer

    def sheet(self, asked: EvaluationRequest, swapped: EvaluationRequest) -> Image.Image:
        """Eight columns: what was shown, what was drawn, and the right answer where there is one."""
        label = self.context.dataset.records[asked.request.target].label
        images = self.context.images(asked.request)
        captions = [
            f'"{label}" as a text prompt, four images by rank',
            f"{label}: this history and this reference; drawn, and the right answer",
            f"{label}: another user's history and the same reference; drawn, and that user's right answer",
            f"{label}: two of the history and the reference; --ref-mask {', '.join(f'{dial:g}' for dial in DIALS)}",
        ]
        prompted = self._draw(asked, images, None, label)
        rows: list[Cells] = [
            [*images.history[:4], *prompted],
            self._answered(asked, images),
            self._answered(swapped, self.context.images(swapped.request)),
            [*images.history[:2], images.reference, *(self._at(asked, images, dial) for dial in DIALS)],
        ]
        return make_sheet(rows, captions=captions, cell=96)

    def _answered(self, asked: EvaluationRequest, images: RequestImages) -> Cells:
        drawn = self._draw(asked, images, images.reference, asked.words)
        return [*images.history, images.reference, drawn[0], to_picture(self.context.answer(asked.request)[0])]

    def _at(self, asked: EvaluationRequest, images: RequestImages, dial: float) -> Image.Image:
        return self._draw(asked, images, images.reference, asked.words, (dial,))[0]

    def _draw(
        self,
        asked: EvaluationRequest,
        images: RequestImages,
        reference: Image.Image | None,
        words: str,
        dials: Sequence[float] | None = None,
    ) -> list[Image.Image]:
        seed = stream_seed(self.context.seed, asked.id)
        return self.drawer.session.personalize(
            images.history, reference, words, dials=dials, count=COMMAND_COUNT, seed=seed
        ).images


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Rows for prompt, swapped history and dial.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, required=True, help="PNG to write")
    parser.add_argument("--seed", type=int, default=2026)
    return print_result(_write, parser.parse_args())


def _write(arguments: argparse.Namespace) -> str:
    dataset = load_dataset(arguments.data)
    context = Context(dataset, arguments.seed)
    drawn = draw_evaluation_requests(dataset, "valid", 100, arguments.seed)
    requests = [EvaluationRequest.of(dataset, each) for each in drawn]
    for asked, swapped in zip(requests, swap_histories(dataset, requests), strict=True):
        if asked.words and swapped is not None:
            save_picture(Showcase(context, bundled()).sheet(asked, swapped), arguments.sheet)
            return f"{arguments.sheet}\n"
    raise InputError("no valid request has words and a second user", "use a larger dataset")


if __name__ == "__main__":
    sys.exit(main())
