"""How far the liked images are turned: drawings are mirror images of themselves more often than not, when upright.

Found without any training, and only of drawings on paper, where nearly all of a history agrees and its edges do not
object: a reference that is turned for no reason is worse than one that is not turned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pigeon_cli.history.preprocess import to_shares

SIDE: Final = 32
"""Pixels of the side on which halves are compared."""
EDGE_SIDE: Final = 128
DEGREES: Final = tuple(range(-36, 37, 4))
"""Clockwise, of which one is looked for."""
LEAST_DEGREES: Final = 10
LEAST_GAIN: Final = 0.8
"""By how many deviations over all angles halves must agree better, in the mean over the history, than upright."""
LEAST_SHARE: Final = 0.8
"""Share of the history that must agree better."""
CLEARLY: Final = 0.2
"""Deviations by which an image counts as one that agrees better."""

BORDER: Final = 3
"""Pixels at the border of an image that are its paper."""
WHITE: Final = (255, 255, 255)
STEP, STEPS = 12, 0.1
"""How much a channel, of 255, may differ between neighbours on a border that is paper, and the share of them that may
differ more: all of 500 valid histories have such borders, and three of 120 of pieces of photographs."""
Numbers = NDArray[np.float32]


def turned_by(history: Sequence[Image.Image]) -> int:
    """Degrees clockwise by which RGB images are turned, 0 where they are not, or do not show it."""
    if sum(map(has_paper, history)) < LEAST_SHARE * len(history):
        return 0
    agreement = np.stack([_mirrored(image) for image in history])
    mean, upright = agreement.mean(0), agreement[:, DEGREES.index(0)]
    best = int(mean.argmax())
    angle = DEGREES[best]
    agreeing = float((agreement[:, best] > upright + CLEARLY).mean())
    gain = float(mean[best] - mean[DEGREES.index(0)])
    if abs(angle) < LEAST_DEGREES or gain < LEAST_GAIN or agreeing < LEAST_SHARE:
        return 0
    edges = _edge_angle(history)
    return angle if abs(edges) < 1 or edges * angle > 0 else 0


def has_paper(image: Image.Image) -> bool:
    """Whether an RGB image's border is smooth, as that of a drawing on paper is and that of a photograph seldom."""
    values = np.asarray(image.resize((EDGE_SIDE, EDGE_SIDE), Image.Resampling.BICUBIC), dtype=np.int16)
    lines = np.stack([values[1], values[-2], values[:, 1], values[:, -2]])
    return float((np.abs(np.diff(lines, axis=1)).max(axis=2) > STEP).mean()) <= STEPS


def paper_colour(image: Image.Image) -> tuple[int, int, int]:
    """The median colour of an RGB image's border; white where that is no paper, as a photograph's."""
    if not has_paper(image):
        return WHITE
    values = np.asarray(image)
    rows = [values[:BORDER], values[-BORDER:], values[:, :BORDER], values[:, -BORDER:]]
    middle = np.median(np.concatenate([part.reshape(-1, 3) for part in rows]), axis=0)
    red, green, blue = (round(float(channel)) for channel in middle)
    return red, green, blue


def turned(image: Image.Image, degrees: int) -> Image.Image:
    """The RGB image turned clockwise on its own paper."""
    return image.rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=paper_colour(image))


def _mirrored(image: Image.Image) -> Numbers:
    """How well an image's halves agree, turned back by each of ``DEGREES``, in deviations from the mean of all."""
    small = image.resize((4 * SIDE, 4 * SIDE), Image.Resampling.BICUBIC).resize((SIDE, SIDE), Image.Resampling.BOX)
    paper, found = paper_colour(small), np.empty(len(DEGREES), dtype=np.float32)
    for number, degrees in enumerate(DEGREES):
        back = small.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=paper)
        upright = np.asarray(back, dtype=np.float32) / 255
        found[number] = -np.abs(upright - upright[:, ::-1]).mean()
    scaled: Numbers = (found - found.mean()) / (found.std() + 1e-3)
    return scaled


def _edge_angle(history: Sequence[Image.Image]) -> float:
    """Degrees clockwise, within 45, by which the edges of all images are off the upright."""
    total = 0j
    for image in history:
        values = to_shares(image, EDGE_SIDE).transpose(1, 2, 0)
        across = values[1:-1, 2:] - values[1:-1, :-2]
        down = values[2:, 1:-1] - values[:-2, 1:-1]
        channel = (across**2 + down**2).argmax(axis=2)[..., None]
        across, down = (np.take_along_axis(part, channel, axis=2)[..., 0] for part in (across, down))
        strength = np.minimum(np.hypot(across, down), 0.5)
        # Edges a quarter turn apart say the same.
        total += complex((strength * np.exp(4j * np.arctan2(down, across))).sum() / max(float(strength.sum()), 1e-6))
    return math.degrees(math.atan2(total.imag, total.real)) / 4
