"""Contact sheets: rows of images with column headers and captions, one picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN = 6
LINE = 18


def make_sheet(
    rows: Sequence[Sequence[Image.Image | None]],
    headers: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    cell: int = 128,
) -> Image.Image:
    """RGB sheet over white; ``headers`` stand above the columns, ``captions`` below their rows.

    Images are fitted into ``cell`` x ``cell`` pixels, alpha over white; ``None`` leaves a gap. Raises ``ValueError``
    when there are more headers than columns or captions do not match the rows.
    """
    columns = max((len(row) for row in rows), default=0)
    if (headers is not None and len(headers) > columns) or (captions is not None and len(captions) != len(rows)):
        raise ValueError("a sheet needs at most one header per column and one caption per row")
    pitch = cell + MARGIN
    top = MARGIN + (LINE if headers else 0)
    row_height = pitch + (LINE if captions else 0)
    sheet = Image.new("RGB", (MARGIN + columns * pitch, top + len(rows) * row_height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, header in enumerate(headers or ()):
        _write(draw, (MARGIN + column * pitch, MARGIN), header, pitch - MARGIN)
    for index, row in enumerate(rows):
        y = top + index * row_height
        for column, image in enumerate(row):
            if image is not None:
                _paste(sheet, image, MARGIN + column * pitch, y, cell)
        if captions:
            _write(draw, (MARGIN, y + cell + 1), captions[index], columns * pitch - MARGIN)
    return sheet


def _paste(sheet: Image.Image, image: Image.Image, x: int, y: int, cell: int) -> None:
    scale = cell / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    picture = image.convert("RGBA").resize(size, Image.Resampling.LANCZOS)
    sheet.paste(picture, (x + (cell - size[0]) // 2, y + (cell - size[1]) // 2), picture)


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int) -> None:
    font = ImageFont.load_default(size=12)
    while len(text) > 1 and draw.textlength(text, font=font) > width:
        text = text[:-2] + "\u2026"
    draw.text(at, text, fill="black", font=font)
