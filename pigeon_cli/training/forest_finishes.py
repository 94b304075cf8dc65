"""Drawings in another finish of the same lines, as decision trees learned them from pairs of siblings' drawings.

Networks that add what differs leave a trace of the sibling's shading in what should be flat, and grey where they are
not sure of ink; so do UNets that draw anew. Trees that are told of regions and borders decide, learn in minutes from
the few hundred pairs that there are, and leave lines where they are. What they make is for the memory; they are not
shipped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import lab2rgb
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, HistGradientBoostingRegressor
from torch import Tensor

from pigeon_cli.training.data.sets import ICON_SETS
from pigeon_cli.training.regions import (
    Labels,
    Numbers,
    Pixels,
    Places,
    enlarged,
    lab,
    pixels_of,
    regions,
    told_of_regions,
    usual_colours,
)

FLAT: Final = frozenset({"fluent-emoji-flat"})
"""Hands that lay on flat colours, among those with a sibling that shades."""
REGION_TREES, REGION_LEAF = 200, 2
"""Of the forest that is told of regions, and the fewest of them that a leaf tells of."""
COLOURS: Final = 150
"""How many of a flat hand's most frequent colours are laid on; all but a few of its pixels have one of them."""
FINER, SOFTENED = 4, 2.5
"""Borders are drawn at so many times the size, those of flat regions rounded by so many of its pixels."""
PLACE_TREES, SHARE = 80, 0.4
"""Of the forests that are told of places, and the share of what is told among which a branch chooses."""
SHOWN: Final = 400
"""Places of each pair that these learn from, where nothing else is said."""
FAR, FAR_SHARE, NEAR, NEAR_SHARE = 6, 0.03, 3, 4.0
"""Paper further off what is drawn, in pixels, is seldom among them; places nearer to a border often are."""
INK_FINER, INK_LEAF, ROUNDED = 2, 4, 1.2
"""Ink is told at so many times the size; the fewest places of a leaf; the blur that takes specks away."""
SHADE_SHOWN, SHADE_LEAVES, SHADE_LEAF, SHADE_RATE = 1000, 63, 40, 0.08
"""Places of each pair that shading is learned from, the most leaves of a tree, the fewest places of one, and what a
tree adds to those before."""
SHADE_TREES, SHADE_RIDGE = 400, 1.0
"""How many of these there are for each channel, and what large values of their leaves cost."""
SHADE_SPREAD: Final = 1.25
"""Times what trees say is added: they say the mean of what may be, which is paler than any drawing."""
SHADE_REACHES: Final = 1
"""How many pixels off what is drawn a sibling's drawing may still be changed; with three, it wears a pale rim."""


class ForestFinisher(ABC):
    """What one hand makes of its siblings' lines, learned from plain pictures [3, S, S] in 0..1 of the same things."""

    def __call__(self, pictures: Tensor) -> Tensor:
        """Plain pictures [B, 3, S, S] in 0..1 by a sibling, as the hand finishes them; the same shape and device."""
        finished = np.stack([self._finished(picture) for picture in pixels_of(pictures)])
        return torch.from_numpy(finished).permute(0, 3, 1, 2).clamp(0, 1).to(pictures)

    @abstractmethod
    def _finished(self, picture: Pixels) -> Numbers:
        """Colours [S, S, 3] in 0..1."""


def learned_finish(hand: str, siblings: Sequence[Tensor], own: Sequence[Tensor]) -> ForestFinisher:
    """What ``hand``, an icon set, makes of its siblings' lines, from plain pictures [3, S, S] in 0..1 of the same
    things, theirs and its own."""
    if ICON_SETS[hand].monochrome:
        return InkFinisher(siblings, own)
    return FlatFinisher(siblings, own) if hand in FLAT else ShadedFinisher(siblings, own)


class FlatFinisher(ForestFinisher):
    """Region by region, each in one colour of those that the hand uses often."""

    def __init__(self, siblings: Sequence[Tensor], own: Sequence[Tensor]) -> None:
        told, wanted, sizes = [], [], []
        answers = pixels_of(own)
        for picture, answer in zip(pixels_of(siblings), answers, strict=True):
            labels = regions(picture)
            told.append(told_of_regions(picture, labels))
            wanted.append(lab(usual_colours(answer, labels)))
            sizes.append(np.bincount(labels.ravel()))
        self.palette = _frequent_colours(answers)
        self.forest = ExtraTreesRegressor(REGION_TREES, min_samples_leaf=REGION_LEAF, random_state=0)
        self.forest.fit(np.concatenate(told), np.concatenate(wanted), np.sqrt(np.concatenate(sizes)))

    def _finished(self, picture: Pixels) -> Numbers:
        labels = regions(picture)
        colours = self.forest.predict(told_of_regions(picture, labels))
        apart = np.square(colours[:, None] - lab(self.palette)[None]).sum(2)
        return painted(apart.argmin(1)[labels], self.palette) / 255


class InkFinisher(ForestFinisher):
    """Place by place black or white, whichever most trees say."""

    def __init__(self, siblings: Sequence[Tensor], own: Sequence[Tensor]) -> None:
        told, wanted = [], []
        for places, answer, chosen in _shown(siblings, own, INK_FINER):
            told.append(places.told[chosen])
            wanted.append((enlarged(answer.mean(2) / 255, INK_FINER) < 0.5).ravel()[chosen])
        self.forest = ExtraTreesClassifier(PLACE_TREES, min_samples_leaf=INK_LEAF, max_features=SHARE, random_state=0)
        self.forest.fit(np.concatenate(told), np.concatenate(wanted))

    def _finished(self, picture: Pixels) -> Numbers:
        side = len(picture)
        votes = self.forest.predict_proba(Places(picture, INK_FINER).told)
        black = votes[:, list(self.forest.classes_).index(True)].reshape(side * INK_FINER, side * INK_FINER)
        hard = enlarged(ndimage.gaussian_filter(black, ROUNDED), FINER // INK_FINER) > 0.5
        return np.repeat(1 - _shrunk(hard)[..., None], 3, axis=2)


class ShadedFinisher(ForestFinisher):
    """Place by place what is added to the sibling's colour."""

    def __init__(self, siblings: Sequence[Tensor], own: Sequence[Tensor]) -> None:
        told, wanted = [], []
        for places, answer, chosen in _shown(siblings, own, 1, SHADE_SHOWN):
            told.append(places.told[chosen])
            wanted.append((lab(answer) - places.colours).reshape(-1, 3)[chosen])
        features = np.concatenate(told)
        self.channels = [
            HistGradientBoostingRegressor(
                learning_rate=SHADE_RATE, max_iter=SHADE_TREES, max_leaf_nodes=SHADE_LEAVES,
                min_samples_leaf=SHADE_LEAF, l2_regularization=SHADE_RIDGE, random_state=0,
            ).fit(features, channel)
            for channel in np.concatenate(wanted).T
        ]  # fmt: skip

    def _finished(self, picture: Pixels) -> Numbers:
        places = Places(picture)
        added = np.stack([channel.predict(places.told) for channel in self.channels], axis=-1).reshape(picture.shape)
        reached = (places.paper_off <= SHADE_REACHES)[..., None]
        finished: Numbers = lab2rgb(places.colours + SHADE_SPREAD * added * reached)
        return finished


def painted(chosen: Labels, palette: Numbers) -> Numbers:
    """Colours [S, S, 3] of pixels by their numbers in ``palette`` [colours, 3], with soft borders."""
    side = len(chosen) * FINER
    picture, most = np.zeros((side, side, 3)), np.full((side, side), -1.0)
    for number in np.unique(chosen):
        share = ndimage.gaussian_filter(enlarged((chosen == number).astype(np.float64), FINER), SOFTENED)
        picture[share > most] = palette[number]
        most = np.maximum(most, share)
    return _shrunk(picture)


def _shown(
    siblings: Sequence[Tensor], own: Sequence[Tensor], finer: int, count: int = SHOWN
) -> Iterable[tuple[Places, Pixels, NDArray[np.int64]]]:
    """Of each pair the sibling's places, the hand's own pixels, and the numbers of ``count`` places to learn from."""
    random = np.random.default_rng(0)
    for picture, answer in zip(pixels_of(siblings), pixels_of(own), strict=True):
        places = Places(picture, finer)
        weights = np.where(places.paper_off > FAR * finer, FAR_SHARE, 1.0)
        weights += (NEAR_SHARE - 1) * (places.off < NEAR * finer) * (places.paper_off <= FAR * finer)
        yield places, answer, random.choice(weights.size, count, p=(weights / weights.sum()).ravel())


def _frequent_colours(pictures: Iterable[Pixels]) -> Numbers:
    counted: Counter[tuple[int, ...]] = Counter()
    for picture in pictures:
        counted.update(map(tuple, picture.reshape(-1, 3).tolist()))
    return np.array([colour for colour, _ in counted.most_common(COLOURS)], dtype=np.float64)


def _shrunk(picture: NDArray[np.generic]) -> Numbers:
    """What was drawn FINER times as large at its size."""
    side = len(picture) // FINER
    whole: Numbers = picture.reshape(side, FINER, side, FINER, *picture.shape[2:]).mean((1, 3))
    return whole
