"""pigeon's own rows of a request file.

    python -m pigeon_cli.evaluation.draw --requests JSONL --model mini --out DIR [--ref-mask auto|0..1] [--base]

At a fixed dial one candidate is drawn, as every rival draws one; ``--ref-mask auto`` draws as ``pigeon generate`` does
and keeps its best. ``--base`` draws with the base language model, without alignment.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

import torch
from PIL import Image

from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.evaluation.drawing import RowMaker, main
from pigeon_cli.evaluation.pictures import Shown
from pigeon_cli.pipeline.session import Session
from pigeon_cli.weights.store import find_model

MASKS: Final = ("learned", "similarity", "random", "off")
COMMAND_COUNT: Final = 4
"""Default of ``pigeon generate -n``: more are drawn than one, and the best by score is kept."""


class Own:
    """A session with the settings of one row."""

    def __init__(self, session: Session, dial: float | None, mask: str | None, aligned: bool) -> None:
        self._session, self._dial, self._mask, self._aligned = session, dial, mask, aligned

    def draw(self, shown: Shown, stream: torch.Generator) -> Image.Image | None:
        """The image of rank 1 for the last liked images that the model reads; ``None`` without what it goes by."""
        if not shown.history or (shown.reference is None and not shown.words):
            return None
        return self._session.personalize(
            shown.history[-self._session.spec.history_size :],
            shown.reference,
            shown.words,
            dials=None if self._dial is None else (self._dial,),
            samples=None if self._dial is None else 1,
            count=COMMAND_COUNT if self._dial is None else 1,
            seed=stream.initial_seed(),
            mask=self._mask,
            aligned=self._aligned,
        ).images[0]


def load(given: argparse.Namespace, device: torch.device) -> Own:
    """The row that the options describe; raises :class:`WeightsError`."""
    session = Session(find_model(given.model), DeviceChoice(device, "as asked"))
    return Own(session, given.ref_mask, given.mask, not given.base)


def _dial(text: str) -> float | None:
    if text == "auto":
        return None
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError(text)
    return share


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ref-mask", type=_dial, default=0.2, metavar="auto|0..1", help="the dial, 0.2")
    parser.add_argument("--mask", choices=MASKS, help="which mask; default: the model's own")
    parser.add_argument("--base", action="store_true", help="the base language model, without alignment")


MAKER = RowMaker("pigeon_cli.evaluation.draw", "A row of pigeon's own for pigeon evaluate", load, _options)

if __name__ == "__main__":
    sys.exit(main(MAKER))
