"""A small request file with pictures, and rows that answer it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "orange")


def blob(path: Path, colour: str, place: int, shape: str) -> Path:
    """A coloured shape on white, 48 x 48 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (48, 48), "white")
    draw = ImageDraw.Draw(image)
    getattr(draw, shape)((6 + 2 * place, 8, 30 + 2 * place, 34), fill=colour)
    image.save(path)
    return path


def write_requests(folder: Path) -> Path:
    """Four requests, the last without words, reference and right answer."""
    lines = []
    for place, colour in enumerate(COLOURS):
        history = [blob(folder / "images" / f"{place}-{n}.png", colour, n, "rectangle") for n in range(2)]
        request = {"id": f"wish-{place}", "history": [str(path.relative_to(folder)) for path in history]}
        if place < 3:
            reference = blob(folder / "images" / f"{place}-reference.png", "grey", place, "ellipse")
            target = blob(folder / "images" / f"{place}-target.png", colour, place, "ellipse")
            request |= {"reference": str(reference), "target": str(target.relative_to(folder))}
            request |= {"words": f"a {colour} <ball> & 'more'", "group": "balls" if place < 2 else None}
        lines.append(json.dumps(request) + "\n")
    path = folder / "requests.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_row(folder: Path, colours: tuple[str | None, ...] = COLOURS, suffix: str = ".png") -> Path:
    """An ellipse per request in a colour, or no image; those of write_requests are the right answers."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, colour in enumerate(colours):
        if colour:
            blob(folder / f"wish-{place}{suffix}", colour, place, "ellipse")
    return folder
