"""What ``--ref-mask auto`` saves: ``python tests/benchmarks/auto.py [--model NAME|DIR] [--runs N]``.

Prints, of one process and by turns, the median seconds of the command's defaults on the images in the package and of
the plain way, eleven whole generations with one dial position and one image each, and their ratio (DESIGN.md section
2). Weights are loaded before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pigeon_cli
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.evaluation.pictures import open_rgb
from pigeon_cli.history.words import sidecar
from pigeon_cli.pipeline.session import Session
from pigeon_cli.pipeline.settings import AUTO_DIALS
from pigeon_cli.weights.store import find_model
from tests.benchmarks.pigeon_drawer import COMMAND_COUNT

SAMPLES = Path(pigeon_cli.__file__).parent / "assets" / "samples"


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Eleven dial positions in one run, and in eleven.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    session = Session(find_model(arguments.model), choose_device("auto"))
    history = [open_rgb(path) for path in sorted((SAMPLES / "history").glob("*.png"))]
    wish, (words, _) = open_rgb(SAMPLES / "reference.png"), sidecar(SAMPLES / "reference.png")

    def at_once() -> None:
        session.personalize(history, wish, words, count=COMMAND_COUNT)

    def one_by_one() -> None:
        for position in AUTO_DIALS:
            session.personalize(history, wish, words, dials=(position,), samples=1, count=1)

    # The first turn loads the weights.
    turns = [(seconds(at_once), seconds(one_by_one)) for _ in range(arguments.runs + 1)][1:]
    ours, plain = (median(column) for column in zip(*turns, strict=True))
    print(f"auto                {ours:.2f} s, median of {arguments.runs}")
    print(f"eleven generations  {plain:.2f} s, median of {arguments.runs}")
    print(f"ratio               {plain / ours:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
