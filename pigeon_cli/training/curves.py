"""One picture of a run's metrics: a small chart for every figure, drawn with Pillow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

Curve = list[tuple[int, float]]

WIDTH: Final = 320
HEIGHT: Final = 180
MARGIN: Final = 34
COLUMNS: Final = 3
LEFT_OUT: Final = ("step", "seconds_per_step")
STROKE: Final = (70, 110, 180)
GRID: Final = (225, 225, 225)


def read_curves(metrics: Path) -> dict[str, Curve]:
    """Figure to its (step, value) in ``metrics.jsonl``; of a step that a resumed run repeats, the later one.

    A line that was cut off when a run was killed is passed over, with what a resumed run wrote behind it.
    """
    found: dict[str, dict[int, float]] = {}
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        values = record.get("evaluation", record)
        for name, value in values.items():
            if name not in LEFT_OUT:
                found.setdefault(name, {})[int(record["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in found.items()}


def draw_curves(curves: dict[str, Curve]) -> Image.Image:
    """RGB picture over white, one chart per curve, in their order."""
    rows = max(1, -(-len(curves) // COLUMNS))
    picture = Image.new("RGB", (COLUMNS * WIDTH, rows * HEIGHT), "white")
    for number, (name, points) in enumerate(curves.items()):
        at = (number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT)
        _draw_chart(ImageDraw.Draw(picture), at, name, points)
    return picture


def save_curves(run_folder: Path) -> None:
    """``curves.png`` beside the metrics of a run; nothing where there are none."""
    metrics = run_folder / "metrics.jsonl"
    if metrics.is_file():
        draw_curves(read_curves(metrics)).save(run_folder / "curves.png")


def _draw_chart(draw: ImageDraw.ImageDraw, at: tuple[int, int], name: str, points: Sequence[tuple[int, float]]) -> None:
    font = ImageFont.load_default(size=11)
    left, top = at[0] + MARGIN + 12, at[1] + 22
    right, bottom = at[0] + WIDTH - 10, at[1] + HEIGHT - MARGIN + 12
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) or 1.0
    first, span = min(steps), (max(steps) - min(steps)) or 1
    draw.text((at[0] + 8, at[1] + 4), f"{name}  {values[-1]:.4g}", fill="black", font=font)
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        draw.line((left, y, right, y), fill=GRID)
        draw.text((at[0] + 4, y - 6), f"{low + share * spread:.3g}", fill="gray", font=font)
    draw.text((left, bottom + 3), str(first), fill="gray", font=font)
    draw.text((right, bottom + 3), str(max(steps)), fill="gray", font=font, anchor="ra")
    line = [
        (left + (step - first) / span * (right - left), bottom - (value - low) / spread * (bottom - top))
        for step, value in points
    ]
    if len(line) > 1:
        draw.line(line, fill=STROKE, width=2, joint="curve")
    if len(line) <= 30:
        for x, y in line:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=STROKE)
