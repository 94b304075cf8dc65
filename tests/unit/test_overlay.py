"""Overlays: every state of a patch looks different without colours, and pictures of any shape give one."""

from __future__ import annotations

import io
import itertools

import pytest
from PIL import Image, ImageStat

from pigeon_cli.core.records import DeviceRecord, InspectedImage, MaskReport, ModelRecord, TokenMask
from pigeon_cli.report import masks_sheet
from pigeon_cli.report.masks_sheet import LEGEND_HEIGHT, draw_masks_sheet, draw_overlays, summary
from pigeon_cli.report.overlay import (
    Heat,
    draw_overlay,
    heat_of,
    overlay_size,
    png_bytes,
    viridis,
)

GREY = Image.new("RGB", (40, 40), (120, 120, 120))
MASK = TokenMask(kept=(0, 2), dropped=(1,), scores=(0.9, 0.1, 0.5), codes=(7, 8, 9), patches=(0, 3, 5))
"""Of 16 patches 0 and 5 are kept, 3 is dropped, the others are no token."""


def patch(overlay: Image.Image, number: int, grid: int = 4) -> Image.Image:
    width, height = overlay.width // grid, overlay.height // grid
    left, top = number % grid * width, number // grid * height
    return overlay.crop((left, top, left + width, top + height))


def lightness(image: Image.Image) -> float:
    return ImageStat.Stat(image.convert("L")).mean[0]


def levels(image: Image.Image) -> int:
    """Kinds of grey within the patch, its edge left out."""
    return len(set(image.crop((2, 2, image.width - 2, image.height - 2)).convert("L").tobytes()))


def test_scores_grow_lighter_so_that_colour_is_not_needed() -> None:
    greys = [Image.new("RGB", (1, 1), viridis(step / 20)).convert("L").getpixel((0, 0)) for step in range(21)]
    assert all(low < high for low, high in itertools.pairwise(greys))
    assert (viridis(-1), viridis(2)) == (viridis(0), viridis(1))


def test_kept_dropped_and_merged_patches_differ_in_grey() -> None:
    overlay = draw_overlay(GREY, MASK, 4, Heat(0.1, 0.9))
    kept_high, kept_middle, dropped, merged = (patch(overlay, number) for number in (0, 5, 3, 1))
    assert [levels(each) for each in (kept_high, kept_middle)] == [1, 1]
    assert levels(dropped) == 3, "heat, a white cross and its black edge"
    assert levels(merged) == 2, "the faded picture and a dot"
    assert lightness(merged) > lightness(kept_high) > lightness(kept_middle) > 80
    assert dropped.getpixel((dropped.width // 2, dropped.height // 2)) == (255, 255, 255)
    assert {patch(overlay, number).tobytes() for number in range(16) if number not in MASK.patches} == {
        merged.tobytes()
    }


def test_without_scores_tokens_keep_the_colours_of_the_picture() -> None:
    orange = Image.new("RGB", (256, 256), (250, 160, 40))
    overlay = draw_overlay(orange, TokenMask((0,), (), (), (7,), (0,)), 4, None)
    assert patch(overlay, 0).getpixel((20, 20)) == (250, 160, 40)
    assert patch(overlay, 1).getpixel((20, 20)) != (250, 160, 40)


def test_imagined_tokens_fill_a_plain_grid_row_by_row() -> None:
    overlay = draw_overlay(None, TokenMask((0, 1, 2, 3), (4,), (0.1, 0.2, 0.3, 0.4, 0.0), (1, 2, 3, 4, 5)), 4, None)
    assert overlay.size == (256, 256)
    assert [levels(patch(overlay, number)) for number in range(7)] == [1, 1, 1, 1, 3, 2, 2]


def test_what_is_where_can_still_be_seen() -> None:
    halves = Image.new("RGB", (256, 256), "white")
    halves.paste((0, 0, 0), (0, 0, 32, 256))
    kept = patch(draw_overlay(halves, TokenMask((0,), (), (0.5,), (7,), (0,)), 4, Heat(0.0, 1.0)), 0)
    assert lightness(kept.crop((4, 4, 28, 60))) + 40 < lightness(kept.crop((36, 4, 60, 60)))


@pytest.mark.parametrize(
    ("size", "grid", "expected"),
    [
        ((1, 1), 4, (256, 256)),
        ((128, 128), 8, (256, 256)),
        ((32, 64), 4, (256, 512)),
        ((4000, 3000), 8, (688, 512)),
        ((20_000, 4), 8, (768, 256)),
        ((5, 9_000), 16, (384, 1152)),
        ((100, 100), 7, (259, 259)),
    ],
)
def test_sizes(size: tuple[int, int], grid: int, expected: tuple[int, int]) -> None:
    assert overlay_size(size, grid) == expected
    assert min(expected) >= 256 and not (expected[0] % grid or expected[1] % grid)


def test_heat_spans_all_masks_and_survives_odd_scores() -> None:
    other = TokenMask((0,), (), (float("nan"),), (1,), (0,))
    assert heat_of([MASK, other]) == Heat(0.1, 0.9)
    assert heat_of([other]) is None and heat_of([TokenMask((0,), ())]) is None
    draw_overlay(GREY, other, 4, Heat(0.0, 1.0))
    assert Heat(0.3, 0.3).colour(0.3) == viridis(0.5)


def report(names: list[str | None], kind: str = "learned", recalled: str | None = None) -> MaskReport:
    images = [InspectedImage("history", name, "0" * 64, MASK) for name in names[:-1]]
    settings = {"mask": kind, "history_mask": 0.2, "reference_mask": 0.5, "seed": 3, "model": "mini"}
    return MaskReport(
        model=ModelRecord("mini"),
        device=DeviceRecord("cpu"),
        settings=settings,
        history=(),
        reference=None,
        prompt="two\nlines",
        grid=4,
        images=(*images, InspectedImage("reference", names[-1], None, MASK)),
        recalled=recalled,
    )


@pytest.mark.parametrize("count", [1, 5, 9])
def test_the_sheet_has_every_image_and_a_legend(count: int) -> None:
    made = report([*["a\nb\x1b[31m 🦊.png"] * count, None])
    pictures = [*[GREY] * count, None]
    overlays = draw_overlays(pictures, made)
    assert len(overlays) == count + 1
    sheet = draw_masks_sheet(pictures, overlays, made)
    legend = sheet.crop((0, sheet.height - LEGEND_HEIGHT, sheet.width, sheet.height))
    colours = {legend.getpixel((x, y)) for x in range(legend.width) for y in (41, 48)}
    assert {viridis(0), viridis(1)} <= colours
    assert legend.getpixel((legend.width - 1, 10)) == (255, 255, 255), "the legend's text fits"
    column = 256 + 2 * 6
    assert sheet.width == max(4, min(count + 1, 6)) * column
    assert (sheet.height - LEGEND_HEIGHT) % (-(-(count + 1) // 6)) == 0


@pytest.mark.parametrize(
    ("picture", "name", "recalled", "column"),
    [
        (GREY, "mine.png", None, ("mine.png", "reference", "2 kept, 1 dropped, 13 merged")),
        (GREY, None, "red\nfox", ("red\\nfox", "reference, recalled", "2 kept, 1 dropped, 13 merged")),
        (None, None, None, ("two\\nlines", "reference, imagined from words", "2 kept, 1 dropped")),
    ],
)
def test_a_column_says_whose_picture_it_is(
    monkeypatch: pytest.MonkeyPatch, picture: Image.Image | None, name: str | None, recalled: str | None, column
) -> None:
    written: list[tuple[str, ...]] = []

    def sheet(rows, headers, captions, cell) -> Image.Image:
        written.append((*headers, *captions))
        return GREY

    monkeypatch.setattr(masks_sheet, "make_sheet", sheet)
    draw_masks_sheet([GREY, picture], [GREY, GREY], report(["liked.png", name], recalled=recalled))
    assert written == [("liked.png", "history", "2 kept, 1 dropped, 13 merged"), column]


def test_the_summary_says_what_decided() -> None:
    assert summary(report([None])) == (
        "mask learned, 0.2 of the history dropped, 0.5 of the reference hidden, seed 3, model mini"
    )
    assert "nothing is dropped" in summary(report([None], "off"))


def test_png_repeats_and_says_nothing_else() -> None:
    data = png_bytes(GREY)
    assert data == png_bytes(GREY.copy())
    with Image.open(io.BytesIO(data)) as image:
        assert (image.size, image.info) == ((40, 40), {})
