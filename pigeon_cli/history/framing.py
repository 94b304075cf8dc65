"""A reference put on its paper as the liked images are on theirs: as large and, where they are turned, turned as well.

Where a drawing stands is not said by how it is drawn, and a reference has its own margin: one that fills its frame
would be drawn so for a person who likes small drawings on much paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

import numpy as np
from PIL import Image

from pigeon_cli.core.records import Framing
from pigeon_cli.history.pose import paper_colour, turned, turned_by

SIDE: Final = 128
DIFFERENT: Final = 30
"""From which difference in a channel, of 255, a pixel is not paper any more."""
INSIDE: Final = 0.94
"""What keeps the corners of a drawing on its sheet when it is turned."""
MOST_SQUARED: Final = 1024
"""Pixels of the side of what is squared: a strip may be very long."""
SMALLEST_CHANGE: Final = 0.04
"""Less than that is not worth a second resampling."""


def filled_share(image: Image.Image) -> float:
    """The longer side of what is drawn on an RGB image's paper, as a share of the frame's; 0 for paper alone."""
    small = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    apart = np.abs(np.asarray(small, dtype=np.float32) - np.array(paper_colour(small)))
    drawn = apart.max(axis=2) > DIFFERENT
    sides = [np.flatnonzero(drawn.any(axis=axis)) for axis in (0, 1)]
    return max((int(found[-1] - found[0]) + 1 if len(found) else 0) / SIDE for found in sides)


def framed_like(
    reference: Image.Image, history: Sequence[Image.Image], degrees: int = 0
) -> tuple[Image.Image, Framing]:
    """The RGB reference turned as ``history`` is, on as much of its own paper as is usual there.

    ``degrees`` clockwise, where it is known by how many the history is turned; else they are looked for. It is made
    smaller or left as it is, never larger: small things are drawn small.
    """
    # Once, since all that is asked of them is asked at this size.
    history = [image.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in history]
    degrees = degrees or turned_by(history)
    if degrees:
        reference = turned(_on_paper(_squared(reference), INSIDE), degrees)
    usual, own = median(map(filled_share, history)), filled_share(reference)
    scale = 1.0 if own == 0 or usual == 0 else min(1.0, usual / own)
    if scale > 1 - SMALLEST_CHANGE:
        scale = 1.0
    else:
        reference = _on_paper(reference, scale)
    return reference, Framing(scale * (INSIDE if degrees else 1.0), degrees)


def _squared(image: Image.Image) -> Image.Image:
    """The image as a square: the history's are squared before their turn is found, and no other shape keeps its corners
    when it is turned."""
    width, height = image.size
    if width == height:
        return image
    side = min(max(width, height), MOST_SQUARED)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def _on_paper(image: Image.Image, scale: float) -> Image.Image:
    """The image with its sides multiplied by ``scale``, in the middle of as large a sheet of its paper."""
    width, height = (max(1, round(side * scale)) for side in image.size)
    framed = Image.new("RGB", image.size, paper_colour(image))
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    framed.paste(small, ((image.width - width) // 2, (image.height - height) // 2))
    return framed
