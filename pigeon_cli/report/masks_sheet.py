"""The contact sheet of ``pigeon inspect-mask``: every image over its overlay, and a legend."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pigeon_cli.core.records import InspectedImage, MaskReport, TokenMask
from pigeon_cli.report.overlay import Heat, draw_overlay, heat_of, smallest_side, viridis
from pigeon_cli.report.sheet import MARGIN, make_sheet
from pigeon_cli.report.terminal import clean

COLUMNS = 6
"""Images side by side; a longer history goes on below."""
LEGEND_HEIGHT, SWATCH, BAR_WIDTH = 84, 28, 180
STATES = (
    ("kept", TokenMask((0,), (), (0.75,), (0,), (0,))),
    ("dropped by the mask", TokenMask((), (0,), (0.25,), (0,), (0,))),
    ("no token: merged away by the tokenizer", TokenMask((), ())),
)


def heats(report: MaskReport) -> dict[str, Heat | None]:
    """The range of scores by role: history tokens are ranked together, reference tokens among themselves."""
    return {
        role: heat_of([image.mask for image in report.images if image.role == role])
        for role in ("history", "reference")
    }


def draw_overlays(pictures: Sequence[Image.Image | None], report: MaskReport) -> list[Image.Image]:
    """One overlay per image of the report."""
    ranges = heats(report)
    return [
        draw_overlay(picture, image.mask, report.grid, ranges[image.role])
        for picture, image in zip(pictures, report.images, strict=True)
    ]


def draw_masks_sheet(
    pictures: Sequence[Image.Image | None], overlays: Sequence[Image.Image], report: MaskReport
) -> Image.Image:
    """RGB sheet over white: name, picture, overlay and counts of every image, the legend below."""
    columns = [
        _column(picture, overlay, image, report)
        for picture, overlay, image in zip(pictures, overlays, report.images, strict=True)
    ]
    width, height = columns[0].size
    lines = -(-len(columns) // COLUMNS)
    # Wide enough for the legend when there are few images.
    sheet = Image.new("RGB", (max(4, min(len(columns), COLUMNS)) * width, lines * height + LEGEND_HEIGHT), "white")
    for place, column in enumerate(columns):
        sheet.paste(column, (place % COLUMNS * width, place // COLUMNS * height))
    _legend(sheet, lines * height, report)
    return sheet


def summary(report: MaskReport) -> str:
    """The settings that decided, on one line."""
    chosen = report.settings
    shares = (
        "nothing is dropped"
        if chosen["mask"] == "off"
        else f"{chosen['history_mask']:g} of the history dropped, {chosen['reference_mask']:g} of the reference hidden"
    )
    return f"mask {chosen['mask']}, {shares}, seed {chosen['seed']}, model {clean(chosen['model'])}"


def is_recalled(image: InspectedImage, report: MaskReport) -> bool:
    """Whether the image is a drawing, known by heart, that took the place of the reference or of one from words."""
    return image.role == "reference" and report.recalled is not None


def name_of(image: InspectedImage, report: MaskReport) -> str:
    """What was recalled, else the file's name, else the prompt; clean of control characters."""
    name = report.recalled if is_recalled(image, report) else image.name
    return clean(name if name is not None else report.prompt or "")


def _column(
    picture: Image.Image | None, overlay: Image.Image, image: InspectedImage, report: MaskReport
) -> Image.Image:
    role, counts = image.role, f"{len(image.mask.kept)} kept, {len(image.mask.dropped)} dropped"
    if picture is None:
        role += ", imagined from words"
    else:
        counts += f", {report.grid**2 - image.mask.placed} merged"
    if is_recalled(image, report):
        role += ", recalled"
    return make_sheet([[picture], [overlay]], [name_of(image, report)], [role, counts], cell=smallest_side(report.grid))


def _legend(sheet: Image.Image, top: int, report: MaskReport) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    ranges = heats(report)
    heat = Heat(0.0, 1.0) if any(ranges.values()) else None
    x, y = MARGIN, top + MARGIN
    for text, mask in STATES:
        sample = Image.new("RGB", (SWATCH, SWATCH), (150, 150, 150))
        sheet.paste(draw_overlay(sample, mask, 1, heat).resize((SWATCH, SWATCH), Image.Resampling.LANCZOS), (x, y))
        draw.text((x + SWATCH + 6, y + 6), text, fill="black", font=font)
        x += SWATCH + 6 + round(draw.textlength(text, font=font)) + 22
    y += SWATCH + 8
    _bar(draw, (MARGIN, y), font, ranges)
    draw.text((MARGIN, y + 20), summary(report), fill="black", font=font)


def _bar(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    ranges: dict[str, Heat | None],
) -> None:
    x, y = at
    scored = [f"{role} {heat.low:.3g} to {heat.high:.3g}" for role, heat in ranges.items() if heat]
    if not scored:
        draw.text((x, y), "no scores: tokens keep the picture's own colours", fill="black", font=font)
        return
    for step in range(BAR_WIDTH):
        draw.line((x + step, y, x + step, y + 14), fill=viridis(step / (BAR_WIDTH - 1)))
    draw.text((x + BAR_WIDTH + 8, y), "score, low to high: " + ", ".join(scored), fill="black", font=font)
