"""Does the dial work? ``python tests/benchmarks/dial.py --data DIR --out DIR --plot FILE.png``.

One candidate per request at each dial position, without words. Agreement is in points, 100 for the same picture.
*With the reference*: the judge's meaning similarity of drawing and reference, each z-scored in its own set. *With the
history*: its style similarity to the history images, on average, as a share of the most that it can be. The style
similarity, not the look similarity: on 60 valid requests (seed 7; real icons, no model) it sets the right answer
further apart from the reference (mean difference over its deviation: 1.36 against 1.12), from the right answer without
the look (1.18 against 1.09) and in another set (0.73 against 0.62); and making the right answer rough costs 31% of its
distance from the reference instead of 85%, so that it does not mistake a worse drawing for another taste.

Prints Markdown; writes dial.md, dial.json, dial.png (or --plot) and draws/dial-POSITION/REQUEST_ID.png into --out.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pigeon_cli.core.errors import InputError
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.data.looks import PLAIN
from pigeon_cli.training.data.requests import draw_evaluation_requests, requests_sha256
from tests.benchmarks.draws import drawn_by_row, print_result, save_picture, write_text
from tests.benchmarks.judge import Judge
from tests.benchmarks.judge_constants import looked
from tests.benchmarks.judge_network import JudgeNetwork
from tests.benchmarks.rows import Context, EvaluationRequest, Row, Setting, load_drawer
from tests.benchmarks.table import paired_bootstrap

DIALS = (0.0, 0.25, 0.5, 0.75, 1.0)
COLOURS = {"reference": "#0072B2", "history": "#D55E00"}
"""Blue and vermilion of Okabe and Ito (2008), which the colour-blind tell apart."""
BANDS = {"reference": "#CCE3F0", "history": "#F7DFCC"}
PANEL = (420, 300)
FOOT = 24
OVERSAMPLED = 4
"""The plot is drawn at four times its size in the README and kept at twice, so that lines are smooth and sharp."""


@dataclass(frozen=True)
class Agreement:
    """Of one request of ``meaning``: agreement at every position of DIALS, 1 for the same picture."""

    meaning: str
    reference: tuple[float, ...]
    history: tuple[float, ...]


def measure(context: Context, requests: Sequence[EvaluationRequest], out: Path) -> Iterator[Agreement]:
    """Agreements of the requests that were drawn at all positions: every row is then of the same requests."""
    judge, network = Judge.load(), JudgeNetwork()
    rows = [Row(f"dial-{dial:g}", f"dial {dial:g}, no words", Setting(words=False), True) for dial in DIALS]
    drawn = [
        drawn_by_row(row, replace(context, dial=dial), requests, out / "draws" / row.name)
        for dial, row in zip(DIALS, rows, strict=True)
    ]
    for request, *images in zip(requests, *drawn, strict=True):
        present = [image for image in images if image is not None]
        if len(present) == len(DIALS):
            yield _agreement(context, request, present, judge, network)


def _agreement(
    context: Context, asked: EvaluationRequest, images: Sequence[Tensor], judge: Judge, network: JudgeNetwork
) -> Agreement:
    request, records = asked.request, context.dataset.records
    reference = records[request.reference]
    liked = zip([records[i] for i in request.history], request.history_looks(), strict=True)
    shown = network.features(looked(context.dataset, [*liked, (reference, PLAIN)]))
    drawn = [network.features(image) for image in images]
    most = 1 + judge.constants.nearness_weight
    return Agreement(
        asked.meaning,
        tuple(judge.meaning_similarity(each, shown[-1:], reference.set, request.set).item() for each in drawn),
        tuple(judge.style_similarity(each, shown[:-1]).mean().item() / most for each in drawn),
    )


def summary(found: Sequence[Agreement]) -> list[dict[str, Any]]:
    """Per position: mean agreement in points, its change since dial 0 and that change's 95% interval by meaning."""
    groups = [each.meaning for each in found]
    rows: list[dict[str, Any]] = [{"dial": dial} for dial in DIALS]
    for place, row in enumerate(rows):
        for kind in COLOURS:
            values = [getattr(each, kind) for each in found]
            now = [each[place] for each in values]
            change = paired_bootstrap(now, [each[0] for each in values], groups)
            cell = {"mean": 100 * fmean(now), "change": change.percent, "low": change.low, "high": change.high}
            row[kind] = {name: round(value, 4) for name, value in cell.items()}
    return rows


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for people."""
    heads = ["dial", "agreement with the reference", "minus dial 0", "agreement with the history", "minus dial 0"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [f"{row['dial']:g}"]
        for kind in COLOURS:
            cells += [f"{row[kind]['mean']:.1f}", "" if row is rows[0] else _change(row[kind])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def verdict(last: Mapping[str, Any]) -> str:
    """What the row of dial 1 says, in words."""
    said = []
    for kind in COLOURS:
        falls = "falls: its interval is" if last[kind]["high"] < 0 else "does not fall: its interval is not"
        said.append(f"agreement with the {kind} {falls} below 0 ({_change(last[kind])})")
    return f"From dial 0 to 1, {said[0]}; {said[1]}."


def _change(cell: Mapping[str, float]) -> str:
    return f"{cell['change']:+.2f} [{cell['low']:+.2f}, {cell['high']:+.2f}]"


def plot(rows: Sequence[Mapping[str, Any]], foot: str) -> Image.Image:
    """Two panels, the change of each agreement since dial 0 with its interval, and a line of text below."""
    width, height = 2 * PANEL[0], PANEL[1] + FOOT
    picture = Image.new("RGB", (width * OVERSAMPLED, height * OVERSAMPLED), "white")
    draw = ImageDraw.Draw(picture)
    for place, kind in enumerate(COLOURS):
        _panel(draw, place * PANEL[0], kind, rows)
    _write(draw, width / 2, PANEL[1] + FOOT / 2, foot, "mm", 11)
    return picture.resize((2 * width, 2 * height), Image.Resampling.LANCZOS)


def _panel(draw: ImageDraw.ImageDraw, offset: int, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    cells = [row[kind] for row in rows]
    ticks = _ticks(min(0, *(cell["low"] for cell in cells)), max(0, *(cell["high"] for cell in cells)))
    left, right, top, bottom = offset + 52, offset + PANEL[0] - 20, 54, PANEL[1] - 46

    def at(dial: float, value: float) -> tuple[float, float]:
        height = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return OVERSAMPLED * (left + dial * (right - left)), OVERSAMPLED * (bottom - height * (bottom - top))

    def along(bound: str) -> list[tuple[float, float]]:
        return [at(dial, cell[bound]) for dial, cell in zip(DIALS, cells, strict=True)]

    draw.polygon([*along("low"), *reversed(along("high"))], fill=BANDS[kind])
    for tick in ticks:
        draw.line([at(0, tick), at(1, tick)], "#D8D8D8" if tick else "#606060", OVERSAMPLED)
        _write(draw, left - 8, at(0, tick)[1] / OVERSAMPLED, f"{tick:+g}" if tick else "0", "rm", 12)
    for dial in DIALS:
        _write(draw, left + dial * (right - left), bottom + 13, f"{dial:g}", "mm", 12)
    draw.line(along("change"), COLOURS[kind], 2 * OVERSAMPLED + 2, joint="curve")
    for point in along("change"):
        draw.circle(point, 4 * OVERSAMPLED, COLOURS[kind])
    _write(draw, left, 18, f"Agreement with the {kind}", "lm", 16, COLOURS[kind])
    _write(draw, left, 37, f"points gained or lost since dial 0 (there: {cells[0]['mean']:.1f} of 100)", "lm", 12)
    _write(draw, (left + right) / 2, bottom + 33, "dial, from the reference (0) to my taste (1)", "mm", 12)


def _ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from ``low`` or below to ``high`` or above, about five."""
    span = max(high - low, 1.0)
    unit = 10.0 ** math.floor(math.log10(span / 5))
    step = next(unit * factor for factor in (1, 2, 5, 10) if span / (unit * factor) <= 5)
    first = math.floor(low / step)
    return [round(step * number, 6) for number in range(first, max(math.ceil(high / step), first + 1) + 1)]


def _write(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, anchor: str, size: int, colour: str = "#202020"
) -> None:
    font = ImageFont.load_default(size=size * OVERSAMPLED)
    draw.text((x * OVERSAMPLED, y * OVERSAMPLED), text, fill=colour, font=font, anchor=anchor)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Agreement with reference and history along the dial.")
    parser.add_argument("--data", type=Path, required=True, help="dataset of `pigeon train data`")
    parser.add_argument("--out", type=Path, required=True, help="folder for draws, table, plot; goes on")
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--generator", default="tests.benchmarks.pigeon_drawer:bundled", help="MODULE:FUNCTION")
    parser.add_argument("--plot", type=Path, help="PNG to write; else dial.png in --out")
    return print_result(_run, parser.parse_args())


def _run(arguments: argparse.Namespace) -> str:
    dataset = load_dataset(arguments.data)
    asked = draw_evaluation_requests(dataset, arguments.split, arguments.requests, arguments.seed)
    requests = [EvaluationRequest.of(dataset, request) for request in asked]
    context = Context(dataset, arguments.seed, load_drawer(arguments.generator))
    found = list(measure(context, requests, arguments.out))
    if not found:
        raise InputError("no request was drawn at every dial position", "the reasons stand above, on stderr")
    about = {
        "split": arguments.split,
        "seed": arguments.seed,
        "requests": len(found),
        "failed": len(asked) - len(found),
        "requests_sha256": requests_sha256(asked),
    }
    rows = summary(found)
    said = ", ".join(f"{key} {value}" for key, value in about.items())
    text = f"{markdown(rows)}\n{said}\n\n{verdict(rows[-1])}\n"
    write_text(arguments.out / "dial.json", json.dumps({**about, "rows": rows}, indent=1) + "\n")
    write_text(arguments.out / "dial.md", text)
    foot = (
        f"{len(found)} {arguments.split} requests, no words. Bands: paired 95% intervals. Each panel has its own scale."
    )
    save_picture(plot(rows, foot), arguments.plot or arguments.out / "dial.png")
    return text


if __name__ == "__main__":
    sys.exit(main())
