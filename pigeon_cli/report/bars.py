"""Bars with intervals, one panel per measure, drawn by Pillow."""

from __future__ import annotations

from typing import Final

from PIL import Image, ImageDraw, ImageFont

from pigeon_cli.core.evaluation import EvaluationTable, Interval, Measure
from pigeon_cli.report.evaluation_text import interval_text
from pigeon_cli.report.terminal import clean

PANEL: Final = 620
"""Width of a panel in pixels; two stand side by side."""
NAME_WIDTH, FIGURE_WIDTH, PAD, LINE = 140, 170, 14, 30
BAR, WHISKER, AXIS, GREY = (86, 140, 190), (30, 30, 30), (120, 120, 120), (176, 176, 176)
COLUMNS: Final = 2


def draw_bars(table: EvaluationTable) -> Image.Image:
    """RGB plot over white: bars from zero, 95% intervals as whiskers, grey bars for baselines."""
    height = PAD * 2 + 24 + LINE * len(table.rows)
    lines = max(1, -(-len(table.measures) // COLUMNS))
    plot = Image.new("RGB", (PANEL * min(COLUMNS, max(1, len(table.measures))), lines * height), "white")
    draw = ImageDraw.Draw(plot)
    for place, measure in enumerate(table.measures):
        corner = (place % COLUMNS * PANEL, place // COLUMNS * height)
        _panel(draw, corner, table, place, measure)
    return plot


def _panel(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], table: EvaluationTable, place: int, measure: Measure
) -> None:
    left, top = corner[0] + PAD, corner[1] + PAD
    better = "higher is better" if measure.higher_is_better else "lower is better"
    draw.text((left, top), f"{measure.name} ({better})", fill="black", font=_font(15))
    figures = [row.figures[place] for row in table.rows]
    low, high = _range(figures)
    start, width = left + NAME_WIDTH, PANEL - 2 * PAD - NAME_WIDTH - FIGURE_WIDTH

    def at(value: float) -> float:
        return start + (value - low) / (high - low) * width

    for number, (row, figure) in enumerate(zip(table.rows, figures, strict=True)):
        y = top + 24 + LINE * number
        draw.text((left, y + 5), _fitted(draw, clean(row.row), NAME_WIDTH - 8), fill="black", font=_font(13))
        if figure is None:
            draw.text((start, y + 5), "no figure", fill=AXIS, font=_font(12))
            continue
        _bar(draw, at(0), at(figure.mean), y, GREY if row.baseline else BAR)
        if figure.low is not None and figure.high is not None:
            _whisker(draw, at(figure.low), at(figure.high), y + 13)
        draw.text((start + width + 10, y + 5), interval_text(figure), fill="black", font=_font(12))
    draw.line((at(0), top + 22, at(0), top + 24 + LINE * len(table.rows)), fill=AXIS)


def _range(figures: list[Interval | None]) -> tuple[float, float]:
    """From zero to the farthest interval, below zero too where a figure is."""
    ends = [end for each in figures if each for end in (each.mean, each.low, each.high) if end is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    return (low, high) if high > low else (0.0, 1.0)


def _bar(draw: ImageDraw.ImageDraw, zero: float, end: float, y: int, colour: tuple[int, int, int]) -> None:
    draw.rectangle((min(zero, end), y + 4, max(zero, end), y + 22), fill=colour)


def _whisker(draw: ImageDraw.ImageDraw, low: float, high: float, y: int) -> None:
    draw.line((low, y, high, y), fill=WHISKER, width=2)
    for end in (low, high):
        draw.line((end, y - 5, end, y + 5), fill=WHISKER, width=2)


def _fitted(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    while len(text) > 1 and draw.textlength(text, font=_font(13)) > width:
        text = text[:-2] + "…"
    return text


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)
