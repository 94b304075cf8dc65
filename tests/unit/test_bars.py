"""Bars are as long as their figures, to the left of zero too."""

from __future__ import annotations

import pytest
from PIL import Image

from pigeon_cli.core.evaluation import EvaluationTable, Interval, Measure, RowFigures
from pigeon_cli.report.bars import BAR, GREY, WHISKER, draw_bars


def drawn(*means: float | None, baseline: bool = False, half: float | None = None) -> Image.Image:
    figures = [None if m is None else Interval(m, half and m - half, half and m + half, 4) for m in means]
    rows = tuple(RowFigures(f"row {n}", baseline, 4, (), (figure,), ()) for n, figure in enumerate(figures))
    return draw_bars(EvaluationTable(4, "0" * 64, (Measure("SSIM", "target", True, ""),), rows, (), {}))


def spans(plot: Image.Image, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """First and last column of ``colour`` in every block of lines that has more of it than letters have."""
    found: list[tuple[int, int]] = []
    before = False
    for y in range(plot.height):
        columns = [x for x in range(plot.width) if plot.getpixel((x, y)) == colour]
        if len(columns) > 10 and not before:
            found.append((columns[0], columns[-1]))
        before = len(columns) > 10
    return found


def test_lengths_are_in_proportion() -> None:
    (start, whole), (other, half), (last, quarter) = spans(drawn(0.8, 0.4, 0.2), BAR)
    assert start == other == last
    # The axis covers the first column.
    widths = [end - start + 1 for end in (whole, half, quarter)]
    assert widths[0] > 200 and widths == pytest.approx([widths[0], widths[0] / 2, widths[0] / 4], abs=1)


def test_a_negative_mean_grows_to_the_left() -> None:
    (zero, _), (left, end) = spans(drawn(1.0, -1.0), BAR)
    assert left < end < zero


def test_a_row_without_a_figure_has_no_bar_and_baselines_are_grey() -> None:
    assert len(spans(drawn(1.0, None, baseline=True), GREY)) == 1
    assert spans(drawn(1.0, None, baseline=True), BAR) == []
    assert spans(drawn(0.5), WHISKER) == [] != spans(drawn(0.5, half=0.1), WHISKER)
