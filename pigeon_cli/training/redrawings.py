"""How a hand would place and colour another's drawing of what it never drew, as decision trees learned it.

Networks that draw anew smear, and one map of all colours makes skin green. Trees tell each colour of another's drawing
what it is likely to turn into, among the colours that the hand lays on; the likeliest are taken as far as they leave
the drawing's contrasts. And they tell which of the hand's drawings stand where this one would. They are not shipped;
the memory keeps what they say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.cluster import KMeans
from sklearn.ensemble import ExtraTreesRegressor

from pigeon_cli.models.redrawing import PALETTE, PAPER, Redrawing, drawn_box
from pigeon_cli.training.placed_drawings import INK, PlacedDrawings, Sketch
from pigeon_cli.training.regions import Labels, Numbers, lab

COLOURS, SAMPLED, STEEP = 64, 60, 6.0
"""How many colours a hand lays on, from how many places of each drawing they are told, and the most change there."""
TREES, LEAF, SHARE = 100, 3, 0.4
"""Of the forests, the fewest examples that a leaf tells of, and the share of what is told among which a branch
chooses."""
DONORS, LEAST_THERE = 3, 0.35
"""Other hands whose drawings of a thing teach, and how much must be drawn in place of a colour to teach it."""
NEAR: Final = 12.0
"""Distance (CIELAB) over which a colour that was laid on speaks for others."""
CONTRAST, STRONG, GREATER = 8.0, 40.0, 10.0
"""What a contrast of :data:`STRONG` that is lost, or new, counts against likelihood, in nats; how much of one (CIELAB)
has to stay, and how much greater one may become."""
LIGHT, LIGHTER = 4.0, 20.0
"""What it counts that what was lighter no longer is, and by how much (CIELAB) it has to be."""
PALE, PALER = 2.0, 25.0
"""What it counts that a colour gets lighter by twice :data:`PALER` (CIELAB), of which once is free: where another hand
drew hair, this one's face may lie, whose yellow is then likely for dark hair."""
LONGER: Final = 1.5
"""Times which a drawing may get longer for its width, or wider."""
TINY: Final = 1e-3


@dataclass(frozen=True)
class Redrawn:
    """A train drawing, by its number, and what becomes of it."""

    row: int
    redrawing: Redrawing


class Boxes:
    """Where a hand's drawings stand, of which one that it lacks should stand like one."""

    def __init__(self, told: Numbers, boxes: Numbers) -> None:
        """Learn the ``boxes`` [N, 4] of drawings of which ``told`` [N, M] is told."""
        self.boxes = boxes
        self.apart = np.abs(boxes[:, None] - boxes).sum(2)
        self.forest = _forest().fit(told, boxes)
        self.leaves = self.forest.apply(told)

    def __call__(self, told: Numbers) -> Numbers:
        """The box [4] from which, for what is ``told`` [M], the others differ least in the mean, each weighed by how
        many trees take it for alike. A mean of boxes would be none in which the hand draws."""
        alike = self.leaves == self.forest.apply(told[None])
        shares = (alike / alike.sum(0)).sum(1)
        box: Numbers = self.boxes[int((shares @ self.apart).argmin())]
        return box


class Redrawer:
    """What each hand would make of others' drawings."""

    def __init__(self, placed: PlacedDrawings, hand: int) -> None:
        """Learn one hand with colours."""
        self.placed, self.hand = placed, hand
        things = placed.drawn_by(hand).tolist()
        rows = placed.rows[things, hand]
        self.palette = _laid_on([placed.pictures[row] for row in rows])
        self.boxes = Boxes(np.stack([placed.told_of_box(thing, hand) for thing in things]), placed.boxes[rows])
        told, answers, weights = self._taught(things)
        self.forest = _forest().fit(told, answers, weights)
        self.likely = self._votes(told, answers, weights)

    def __call__(self, thing: int, donor: int) -> Redrawing | None:
        """What becomes of the drawing of a thing by the hand ``donor``; ``None`` where nothing is drawn on it."""
        picture = self.placed.pictures[self.placed.rows[thing, donor]]
        sketch = Sketch.of(picture)
        if not sketch.drawn:
            return None
        told = self.placed.told_of_colours(sketch, thing, self.hand, donor)
        box = self.boxes(self.placed.told_of_box(thing, self.hand))
        chosen = chosen_colours(sketch, self._likelihood(told), lab(self.palette[None])[0])
        was, becomes = np.full((2, PALETTE, 3), 255, dtype=np.uint8)
        was[: len(sketch.colours)] = sketch.colours
        becomes[sketch.drawn] = self.palette[chosen]
        # What is too little to be told of goes with the colour that is most like it.
        for number in set((~sketch.is_paper).nonzero()[0].tolist()) - set(sketch.drawn):
            apart = np.square(sketch.colours[sketch.drawn] - sketch.colours[number].astype(np.float64)).sum(1)
            becomes[number] = becomes[sketch.drawn[int(apart.argmin())]]
        return Redrawing(fitting_box(picture, box), torch.from_numpy(was), torch.from_numpy(becomes))

    def _taught(self, things: Iterable[int]) -> tuple[Numbers, Numbers, Numbers]:
        """What is told [N, M] of colours of others' drawings of ``things``, what they turn into [N, 3] (CIELAB), and
        how much each counts [N]."""
        placed = self.placed
        told, answers, weights = [], [], []
        for thing in things:
            for donor in placed.donors(thing, self.hand)[:DONORS]:
                sketch = Sketch.of(placed.pictures[placed.rows[thing, donor]])
                if not sketch.drawn:
                    continue
                known = placed.told_of_colours(sketch, thing, self.hand, donor)
                sizes = np.bincount(sketch.labels.ravel())[sketch.drawn]
                for place, colour, share in placed.answers(sketch, int(placed.rows[thing, self.hand])):
                    if share >= LEAST_THERE:
                        told.append(known[place])
                        answers.append(colour)
                        weights.append(share * np.sqrt(sizes[place]))
        return np.stack(told), np.stack(answers), np.array(weights)

    def _votes(self, told: Numbers, answers: Numbers, weights: Numbers) -> list[Numbers]:
        """Of every tree what its leaves [nodes, COLOURS] say for the hand's colours."""
        apart = np.square(answers[:, None] - lab(self.palette[None])).sum(2)
        speaks = np.exp(-apart / (2 * NEAR**2)) * weights[:, None]
        votes = []
        for leaves, tree in zip(self.forest.apply(told).T, self.forest.estimators_, strict=True):
            said, heard = np.zeros((tree.tree_.node_count, len(self.palette))), np.zeros(tree.tree_.node_count)
            np.add.at(said, leaves, speaks)
            np.add.at(heard, leaves, weights)
            votes.append(said / np.maximum(heard, TINY)[:, None])
        return votes

    def _likelihood(self, told: Numbers) -> Numbers:
        """[colours, COLOURS] of what is told of the colours of a sketch."""
        leaves = self.forest.apply(told).T
        likelihood: Numbers = np.mean([said[leaf] for said, leaf in zip(self.likely, leaves, strict=True)], axis=0)
        return likelihood


def redrawings(placed: PlacedDrawings, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Redrawn]:
    """Of ``places``, things and hands, those at which another's drawing can be redrawn."""
    learned: dict[int, Redrawer] = {}
    found = {}
    for thing, hand in places:
        donor = can_redraw(placed, thing, hand)
        if donor is None:
            continue
        if hand not in learned:
            learned[hand] = Redrawer(placed, hand)
        redrawing = learned[hand](thing, donor)
        if redrawing is not None:
            found[thing, hand] = Redrawn(int(placed.rows[thing, donor]), redrawing)
    return found


def can_redraw(placed: PlacedDrawings, thing: int, hand: int) -> int | None:
    """The hand whose drawing of a thing is redrawn for ``hand``, which lacks it; ``None`` where one that draws the same
    lines has one, which needs but colours, where nobody has one in colours, or nothing teaches how the hand draws."""
    donors = placed.donors(thing, hand)
    others = [other for other in range(len(placed.kin)) if other != hand and placed.rows[thing, other] >= 0]
    if hand not in placed.learnable or not donors or donors[0] in INK:
        return None
    nearest = max(others, key=lambda other: float(placed.kin[hand, other]))
    return None if placed.siblings[nearest, hand] else donors[0]


def chosen_colours(sketch: Sketch, likelihood: Numbers, palette: Numbers) -> NDArray[np.int64]:
    """Numbers [drawn] among the hand's ``palette`` [COLOURS, 3] (CIELAB) of what the drawn colours of a sketch turn
    into, of which each is as likely as ``likelihood`` [drawn, COLOURS] says.

    The largest come first, each as likely as can be where its contrast to larger ones that it touches stays: what
    covers most tells the hand, a face keeps its dark eyes, and two shades of red do not become green and blue. What was
    dark seldom gets light.
    """
    sizes = np.bincount(sketch.labels.ravel(), minlength=len(sketch.colours))
    was = lab(sketch.colours[None])[0]
    touching = _touching(sketch.labels, len(was))
    becomes = {number: np.array([100.0, 0.0, 0.0]) for number in sketch.is_paper.nonzero()[0].tolist()}
    places = {number: place for place, number in enumerate(sketch.drawn)}
    chosen = np.zeros(len(places), dtype=np.int64)
    for number in sorted(places, key=lambda number: -int(sizes[number])):
        cost = -np.log(likelihood[places[number]] + TINY)
        cost += PALE * np.maximum(0, palette[:, 0] - was[number, 0] - PALER) / PALER
        borders = touching[number] / max(TINY, touching[number].sum())
        for other in sorted(becomes.keys() & set(borders.nonzero()[0].tolist())):
            before, after = was[number] - was[other], palette - becomes[other]
            contrast, apart = float(np.linalg.norm(before)), np.linalg.norm(after, axis=1)
            changed = np.maximum(0, min(STRONG, contrast) - apart)
            if other in places:
                changed += np.maximum(0, apart - contrast - GREATER)
            lost = min(LIGHTER, abs(float(before[0]))) - np.sign(before[0]) * after[:, 0]
            cost += borders[other] * (CONTRAST * changed / STRONG + LIGHT * np.clip(lost / LIGHTER, 0, 2))
        chosen[places[number]] = cost.argmin()
        becomes[number] = palette[chosen[places[number]]]
    return chosen


def fitting_box(picture: Image.Image, box: Numbers) -> tuple[float, float, float, float]:
    """The foretold ``box`` [4], top, bottom, left and right in shares of the side, no more than :data:`LONGER` times
    longer or wider than the drawing is, and on the sheet."""
    top, bottom, left, right = drawn_box(picture)
    high, wide = box[1] - box[0], box[3] - box[2]
    stretched = (wide / high) / ((right - left) / (bottom - top))
    change = np.sqrt(np.clip(stretched, 1 / LONGER, LONGER) / stretched)
    wide, high = wide * change, high / change
    smaller = min(1.0, 1 / wide, 1 / high)
    edges = []
    for middle, size in (((box[0] + box[1]) / 2, high * smaller), ((box[2] + box[3]) / 2, wide * smaller)):
        start = min(max(middle - size / 2, 0.0), 1 - size)
        edges += [float(start), float(start + size)]
    return edges[0], edges[1], edges[2], edges[3]


def _touching(labels: Labels, count: int) -> Numbers:
    """[count, count]: shares of all borders at which two colours touch."""
    found = np.zeros((count, count))
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        np.add.at(found, (one.ravel(), other.ravel()), 1)
    found = found + found.T
    np.fill_diagonal(found, 0)
    shares: Numbers = found * 2 / max(1.0, found.sum())
    return shares


def _laid_on(pictures: list[Image.Image]) -> NDArray[np.uint8]:
    """The colours [COLOURS, 3] that a hand lays on, away from borders, in plain pictures; all where it has fewer."""
    choice = np.random.default_rng(0)
    seen = []
    for picture in pictures:
        pixels = np.asarray(picture).astype(np.float64)
        change = np.abs(np.gradient(pixels.mean(2))).sum(0)
        inside = pixels[ndimage.binary_erosion(pixels.min(2) < PAPER) & (change < STEEP)]
        if len(inside):
            seen.append(choice.choice(inside, SAMPLED))
    colours = np.concatenate(seen)
    count = min(COLOURS, len(np.unique(colours, axis=0)))
    found: NDArray[np.uint8] = (
        KMeans(count, n_init=1, random_state=0).fit(colours).cluster_centers_.round().astype(np.uint8)
    )
    return found


def _forest() -> ExtraTreesRegressor:
    return ExtraTreesRegressor(TREES, min_samples_leaf=LEAF, max_features=SHARE, random_state=0)
