"""How much of its frame a picture fills, and a reference made to fill as much as the liked images do.

Where a drawing stands is not said by how it is drawn, and a reference has its own margin: one that fills its frame
would be drawn so for a person who likes small drawings on much paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pigeon_cli.history.preprocess import to_shares

SIDE: Final = 128
BORDER: Final = 3
"""Pixels of ``SIDE`` at the border, whose median colour is the paper's."""
DIFFERENT: Final = 0.12
"""From which difference in a channel, of 1, a pixel is not paper any more."""
SMALLEST_CHANGE: Final = 0.04
"""Less than that is not worth a second resampling."""


def filled_share(image: Image.Image) -> float:
    """The longer side of what is drawn on an RGB image's paper, as a share of the frame's; 0 for paper alone."""
    values = to_shares(image, SIDE).transpose(1, 2, 0)
    drawn = (np.abs(values - _paper(values)).max(axis=2)) > DIFFERENT
    sides = [np.flatnonzero(drawn.any(axis=axis)) for axis in (0, 1)]
    return max((int(found[-1] - found[0]) + 1 if len(found) else 0) / SIDE for found in sides)


def framed_like(reference: Image.Image, history: Sequence[Image.Image]) -> tuple[Image.Image, float]:
    """The RGB reference on as much of its own paper as is usual in ``history``, and what its sides were multiplied by.

    It is made smaller or left as it is (1), never larger: small things are drawn small.
    """
    usual, own = median(map(filled_share, history)), filled_share(reference)
    scale = 1.0 if own == 0 or usual == 0 else min(1.0, usual / own)
    if scale > 1 - SMALLEST_CHANGE:
        return reference, 1.0
    width, height = (max(1, round(side * scale)) for side in reference.size)
    paper = _paper(np.asarray(reference, dtype=np.float32))
    framed = Image.new("RGB", reference.size, tuple(round(float(channel)) for channel in paper))
    small = reference.resize((width, height), Image.Resampling.LANCZOS)
    framed.paste(small, ((reference.width - width) // 2, (reference.height - height) // 2))
    return framed, scale


def _paper(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median colour [3] of the border of an image [H, W, 3]."""
    rows = [values[:BORDER], values[-BORDER:], values[:, :BORDER], values[:, -BORDER:]]
    colour: NDArray[np.float32] = np.median(np.concatenate([part.reshape(-1, 3) for part in rows]), axis=0)
    return colour
