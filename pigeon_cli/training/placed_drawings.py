"""Train drawings in their boxes, and what is told of them to foretell how another hand would place and colour them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from pigeon_cli.models.redrawing import PALETTE, PAPER, drawn_box
from pigeon_cli.models.small_pictures import few_colours
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.looks import PLAIN, apply_look
from pigeon_cli.training.data.sets import HANDS, ICON_SETS
from pigeon_cli.training.figures import to_images
from pigeon_cli.training.foretelling import EXAMPLES, DrawnTable
from pigeon_cli.training.regions import Labels, Numbers, lab

SIDE: Final = 64
"""Places across a drawing's box."""
SAME_LINES: Final = 0.6
"""Least kinship of two sets of one family that draw the same lines."""
INK: Final = frozenset(hand for hand, name in enumerate(HANDS) if ICON_SETS[name].monochrome)
"""Hands without colours."""
FEWEST: Final = 6
"""Places of a colour, below which nothing is told of it."""
LEAST_SHOWN: Final = 4.0
"""And of another drawing there."""
MISSING: Final = np.nan


@dataclass(frozen=True)
class Sketch:
    """A drawing in few colours."""

    labels: Labels
    """[SIDE, SIDE]: which colour is where in its box."""
    colours: NDArray[np.uint8]
    """[k, 3], k up to PALETTE."""

    @cached_property
    def drawn(self) -> list[int]:
        """Numbers of the colours of which something is told."""
        sizes = np.bincount(self.labels.ravel(), minlength=len(self.colours))
        return [number for number, size in enumerate(sizes) if size >= FEWEST and not self.is_paper[number]]

    @cached_property
    def is_paper(self) -> NDArray[np.bool_]:
        """[k]."""
        found: NDArray[np.bool_] = self.colours.min(1) > PAPER
        return found

    @classmethod
    def of(cls, picture: Image.Image) -> Sketch:
        """That of a plain RGB picture on white."""
        few = few_colours(picture, PALETTE)
        pixels = np.asarray(few)
        colours, labels = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
        numbers = Image.fromarray(labels.reshape(pixels.shape[:2]).astype(np.uint8))
        top, bottom, left, right = drawn_box(picture)
        within = numbers.crop((left, top, right, bottom)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        return cls(np.asarray(within).astype(np.int64), colours)


class PlacedDrawings:
    """Plain train drawings, each in its box, by things and hands."""

    def __init__(self, batches: IconBatches, table: DrawnTable, kin: Tensor) -> None:
        """``table`` of the train records of ``batches``; ``kin``: :func:`pigeon_cli.training.memory.kinship`."""
        records = batches.train
        self.rows, self.examples = table.rows.numpy(), table.examples[:, :, :EXAMPLES].numpy()
        families = [ICON_SETS[name].family for name in HANDS]
        agree = np.maximum(kin.numpy(), kin.numpy().T) >= SAME_LINES
        self.siblings = agree & np.equal.outer(families, families)
        self.kin = kin.numpy()
        self.pictures = [to_images(apply_look(PLAIN, batches.rgba([record])))[0] for record in records]
        self.boxes = np.array([_shares(picture) for picture in self.pictures])
        within = [_within_box(picture) for picture in self.pictures]
        self.there = np.stack([pixels.min(2) < PAPER for pixels in within])
        self.colours = np.stack([lab(pixels).astype(np.float32) for pixels in within])
        self.means = np.array(
            [colours[there].mean(0) if there.any() else [MISSING] * 3
             for colours, there in zip(self.colours, self.there, strict=True)]
        )  # fmt: skip
        names = [(records[row].group, records[row].subgroup) for row in self.rows.max(1)]
        self.kinds = np.stack([np.unique(part, return_inverse=True)[1] for part in zip(*names, strict=True)], axis=1)

    def drawn_by(self, hand: int) -> NDArray[np.int64]:
        """Numbers of the things that a hand drew."""
        return (self.rows[:, hand] >= 0).nonzero()[0]

    @cached_property
    def learnable(self) -> frozenset[int]:
        """Hands with colours that drew something that others drew in other lines and in colours."""
        return frozenset(
            hand for hand in range(len(HANDS))
            if hand not in INK and any(set(self.donors(thing, hand)) - INK for thing in self.drawn_by(hand).tolist())
        )  # fmt: skip

    def donors(self, thing: int, hand: int) -> list[int]:
        """The hands that drew a thing in other lines than ``hand`` has, the nearest first; those with colours, if there
        are any."""
        others = [
            other for other in range(len(HANDS))
            if other != hand and self.rows[thing, other] >= 0 and not self.siblings[other, hand]
        ]  # fmt: skip
        coloured = [other for other in others if other not in INK]
        return sorted(coloured or others, key=lambda other: -float(self.kin[hand, other]))

    def told_of_box(self, thing: int, hand: int) -> Numbers:
        """[N]: where other hands drew the thing, and this one what it should draw much alike."""
        shown = [*self._others(thing, hand), *self.examples[thing, hand]]
        boxes = np.array([self.boxes[row] if row >= 0 else [MISSING] * 4 for row in shown])
        mean = _mean(boxes[: len(HANDS)])
        aspect = (mean[1] - mean[0]) / max(1 / SIDE, mean[3] - mean[2])
        return np.concatenate([boxes.ravel(), mean, [aspect], self.kinds[thing]])

    def told_of_colours(self, sketch: Sketch, thing: int, hand: int, donor: int) -> Numbers:
        """[drawn colours, N] of a ``sketch`` of the thing by the hand ``donor``: what it is like, and what others draw
        in its place."""
        shown = [*self._others(thing, hand), *self.examples[thing, hand]]
        inside = np.stack([sketch.labels == number for number in sketch.drawn]).astype(np.float32)
        there = np.stack([self._there_in(row, inside) for row in shown], axis=1)
        means = np.array([self.means[row] if row >= 0 else [MISSING] * 3 for row in shown])
        coloured = [other for other in range(len(HANDS)) if other not in INK]
        own = lab(sketch.colours[None])[0]
        inked = ~sketch.is_paper[sketch.labels]
        inner = ndimage.binary_erosion(np.pad(inked, 1))[1:-1, 1:-1]
        whole = [means[len(HANDS) :].ravel(), _mean(means[coloured]), own.mean(0), own[sketch.drawn].std(0)]
        told = []
        for number, one, rows in zip(sketch.drawn, inside > 0, there, strict=True):
            places = np.argwhere(one) / SIDE
            size = [len(places) / max(1, int(inked.sum()))]
            at_border = [1 - inner[one].mean()]
            beside = [rows.ravel(), _mean(rows[coloured, :3]), _mean(rows[len(HANDS) :, :3])]
            row = [[donor], own[number], size, places.mean(0), places.std(0), at_border, *beside, *whole]
            told.append(np.concatenate([*row, self.kinds[thing]]))
        return np.stack(told)

    def answers(self, sketch: Sketch, row: int) -> Iterator[tuple[int, Numbers, float]]:
        """Of the drawn colours, by their places among them, the usual one (CIELAB) that train drawing ``row`` has
        there, and how much it draws there, up to 1."""
        for place, number in enumerate(sketch.drawn):
            inside = sketch.labels == number
            core = ndimage.binary_erosion(inside)
            inside = core if core.sum() > FEWEST else inside
            drawn = inside & self.there[row]
            if drawn.any():
                yield place, np.median(self.colours[row][drawn], axis=0), drawn.sum() / inside.sum()

    def _others(self, thing: int, hand: int) -> Sequence[int]:
        return [
            -1 if other == hand or self.siblings[other, hand] else int(self.rows[thing, other])
            for other in range(len(HANDS))
        ]

    def _there_in(self, row: int, inside: NDArray[np.float32]) -> Numbers:
        """[colours, 4] of a train drawing: its mean colour in places [colours, SIDE, SIDE], and how much is drawn."""
        if row < 0:
            return np.full((len(inside), 4), MISSING)
        weights = (inside * self.there[row]).reshape(len(inside), -1)
        sizes = weights.sum(1, keepdims=True)
        means = weights @ self.colours[row].reshape(-1, 3) / np.maximum(sizes, 1e-6)
        means[sizes[:, 0] < LEAST_SHOWN] = MISSING
        return np.concatenate([means, sizes / inside.reshape(len(inside), -1).sum(1, keepdims=True)], axis=1)


def _shares(picture: Image.Image) -> list[float]:
    return [edge / picture.height for edge in drawn_box(picture)]


def _within_box(picture: Image.Image) -> NDArray[np.uint8]:
    """[SIDE, SIDE, 3]."""
    top, bottom, left, right = drawn_box(picture)
    return np.asarray(picture.crop((left, top, right, bottom)).resize((SIDE, SIDE), Image.Resampling.BOX))


def _mean(rows: NDArray[Any]) -> Numbers:
    """Of rows without those that are missing; missing where all are."""
    known = ~np.isnan(rows).any(axis=1)
    return rows[known].mean(0) if known.any() else np.full(rows.shape[1], MISSING)
