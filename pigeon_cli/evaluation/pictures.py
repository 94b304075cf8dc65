"""Images of requests and rows, opened by the one intake and preprocessing of the house."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from PIL import Image

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.evaluation import EvaluationRequest, RowFolder
from pigeon_cli.evaluation.requests import image_of
from pigeon_cli.history.intake import open_image
from pigeon_cli.history.preprocess import to_rgb
from pigeon_cli.history.words import sidecar

SIDE: Final = 512
"""Pixels to which every image is brought before it is measured (DESIGN.md section 2, "Metrics")."""


@dataclass(frozen=True)
class Shown:
    """What a request shows, RGB over white."""

    history: tuple[Image.Image, ...]
    reference: Image.Image | None
    target: Image.Image | None
    words: str
    history_words: tuple[str, ...] = ()
    """Words beside each liked image (``NAME.txt``), ``""`` where there are none."""

    def resized(self) -> Shown:
        """The same at SIDE x SIDE pixels."""
        history = tuple(map(resized, self.history))
        reference, target = (None if image is None else resized(image) for image in (self.reference, self.target))
        return replace(self, history=history, reference=reference, target=target)


def open_shown(request: EvaluationRequest) -> Shown:
    """The images and words of ``request``; raises :class:`InputError` for one that cannot be used."""
    reference, target = (None if path is None else open_rgb(path) for path in (request.reference, request.target))
    history_words = tuple(sidecar(path)[0] for path in request.history)
    return Shown(tuple(map(open_rgb, request.history)), reference, target, request.words, history_words)


def open_drawn(rows: Sequence[RowFolder], request: EvaluationRequest) -> list[Image.Image | None]:
    """The image of every row, RGB over white; ``None`` where there is none or it is unreadable."""
    return [_readable(image_of(row.folder, request)) for row in rows]


def open_rgb(path: Path) -> Image.Image:
    """One image as RGB over white; raises :class:`InputError` for one that cannot be used."""
    return to_rgb(open_image(path))


def resized(image: Image.Image) -> Image.Image:
    """SIDE x SIDE pixels, bilinear, aspect ratio ignored."""
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def _readable(path: Path | None) -> Image.Image | None:
    try:
        return None if path is None else open_rgb(path)
    except InputError:
        return None
