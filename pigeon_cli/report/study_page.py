"""``study.html`` of ``pigeon study make``: pairs of drawings that say nothing about who made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from PIL import Image, ImageOps

from pigeon_cli.core.evaluation import STUDY_VERSION
from pigeon_cli.report.page import inline_json, picture_uri, render

SIDE: Final = 512
"""Pixels of a drawing's longer side at most."""
SMALL_SIDE: Final = 192
"""The same of what is shown beside the drawings."""


@dataclass
class StudyBuilder:
    """Collects pairs; a picture that comes again, such as a history image of the same person, is stored once."""

    images: list[str] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    _known: dict[str, int] = field(default_factory=dict)

    def add(
        self,
        history: Sequence[Image.Image],
        reference: Image.Image | None,
        words: str,
        left: Image.Image,
        right: Image.Image,
    ) -> None:
        """One more pair, RGB images of any size; the drawings come to one size, which would tell the rows apart."""
        side = min(SIDE, max(left.size), max(right.size))
        self.pairs.append(
            {
                "number": len(self.pairs) + 1,
                "words": words,
                "history": [self._place(image, SMALL_SIDE) for image in history],
                "reference": None if reference is None else self._place(reference, SMALL_SIDE),
                "left": self._place(_squared(left, side), SIDE),
                "right": self._place(_squared(right, side), SIDE),
            }
        )

    def page(self, study: str) -> bytes:
        """UTF-8 HTML that works from disk and saves its answers as a file."""
        content = {"version": STUDY_VERSION, "study": study, "images": self.images, "pairs": self.pairs}
        return render("study.html", "study.css", "study.js", study=inline_json(content))

    def _place(self, image: Image.Image, side: int) -> int:
        uri = picture_uri(image, side)
        if uri not in self._known:
            self._known[uri] = len(self.images)
            self.images.append(uri)
        return self._known[uri]


def _squared(image: Image.Image, side: int) -> Image.Image:
    """SIDE x SIDE pixels, the aspect ratio kept by white margins."""
    return ImageOps.pad(image, (side, side), Image.Resampling.LANCZOS, color="white")
