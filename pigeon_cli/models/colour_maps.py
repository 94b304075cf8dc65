"""Read off pairs of colours: what became of a drawing's colours under a look.

Three simple maps and no change at all are tried. What serves best is what tells the colours of a picture best that it
was not fitted to: a richer map always fits its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import torch
from torch import Tensor

from pigeon_cli.models.look_kernels import LUMINANCE

KNOTS: Final = 7
"""Of a scale of colours from dark to light."""
AFFINE_PRIOR, SCALE_PRIOR, BEND_PRIOR = 1e-3, 1e-4, 2e-3
"""What departing from no change, from nothing, and from straight scales costs, as shares of the data's weight: colours
that the pairs do not show are guessed by it."""
STEPS: Final = (3, 4)
"""In how many steps a channel may be cut."""
SATURATIONS: Final = (1.2, 1.3, 1.4, 1.5, 1.6)
USUAL_WHITE: Final = 0.92
"""The lightest step, where the pairs show hardly any light colour."""
LEAST_GAIN, LEAST_SHARE = 0.004, 1.15
"""By how much, and how many times, no change must be worse than a map before that is taken."""
OFF_LINE, ON_LINE, LEAST_LINE = 0.06, 0.99, 0.08
"""How far from one line between two colours, in a channel, others may be, the share of them that may be no farther, and
the deviation along it below which there is no line."""


class ColourMap(Protocol):
    """Colours [N, 3] in 0..1 to the same under a look; ``kind`` names the map in reports."""

    @property
    def kind(self) -> str: ...

    def __call__(self, colours: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class ColourPairs:
    """Colours [N, 3] of plain drawings, the same places' under the look, their weights [N], and int64 [N] the numbers
    of the pictures that they are of."""

    plain: Tensor
    liked: Tensor
    weights: Tensor
    pictures: Tensor

    def only(self, rows: Tensor) -> ColourPairs:
        """Those of ``rows``, bool [N]."""
        return ColourPairs(self.plain[rows], self.liked[rows], self.weights[rows], self.pictures[rows])

    def error(self, colours: ColourMap) -> Tensor:
        """Weighted sum of the mean absolute errors of a map."""
        return ((colours(self.plain) - self.liked).abs().mean(1) * self.weights).sum()


Fit: TypeAlias = Callable[[ColourPairs], ColourMap]


@dataclass(frozen=True)
class Unchanged:
    """Colours as they are."""

    kind: str = "unchanged"

    def __call__(self, colours: Tensor) -> Tensor:
        return colours


@dataclass(frozen=True)
class Affine:
    """A matrix [4, 3]: tints, and turns of the colour wheel."""

    matrix: Tensor
    kind: str = "affine"

    def __call__(self, colours: Tensor) -> Tensor:
        return (_with_one(colours) @ self.matrix).clamp(0, 1)


@dataclass(frozen=True)
class Scale:
    """A colour for every brightness, ``knots`` [KNOTS, 3], and ``share`` of the colour that was there before: palettes,
    duotones."""

    share: Tensor
    knots: Tensor
    kind: str = "scale"

    def __call__(self, colours: Tensor) -> Tensor:
        return (self.share * colours + _hats(colours) @ self.knots).clamp(0, 1)


@dataclass(frozen=True)
class Steps:
    """``count`` steps a channel after ``saturation``; ``white`` is the lightest."""

    count: int
    saturation: float
    white: float
    kind: str = "steps"

    def __call__(self, colours: Tensor) -> Tensor:
        return _cut(colours, self.count, self.saturation) * self.white


def read_colour_map(pairs: ColourPairs) -> ColourMap:
    """The map that tells each picture's colours best by those of the others."""
    fits = list(_fits())
    errors = [_error_unseen(pairs, fit) for fit in fits]
    best = min(range(len(fits)), key=errors.__getitem__)
    if errors[0] < LEAST_SHARE * errors[best] + LEAST_GAIN:
        best = 0
    return fits[best](pairs)


def read_line(pictures: Tensor) -> ColourMap:
    """Of RGB pictures [B, 3, S, S] in 0..1 alone: what brings colours nearest to the line between two colours on which
    all theirs are, greys or those of one ink on its paper; no change where they are not."""
    colours = pictures.transpose(0, 1).flatten(1)
    mean = colours.mean(1, keepdim=True)
    variances, axes = torch.linalg.eigh(torch.cov(colours))
    onto = axes[:, -1:] @ axes[:, -1:].T
    off = (colours - mean - onto @ (colours - mean)).abs().amax(0)
    if float(variances[-1]) < LEAST_LINE**2 or float((off < OFF_LINE).float().mean()) < ON_LINE:
        return Unchanged()
    return Affine(torch.cat([onto, (mean - onto @ mean).T]))


def _fits() -> Iterator[Fit]:
    yield lambda pairs: Unchanged()
    yield _fit_affine
    yield _fit_scale
    for count in STEPS:
        for saturation in SATURATIONS:
            yield _fit_steps(count, saturation)


def _error_unseen(pairs: ColourPairs, fit: Fit) -> float:
    """The weighted mean error on pictures that were left out; of a single picture, on itself."""
    pictures = pairs.pictures.unique()
    if len(pictures) == 1:
        return float(pairs.error(fit(pairs)) / pairs.weights.sum())
    left_out = [pairs.pictures == picture for picture in pictures]
    errors = torch.stack([pairs.only(rows).error(fit(pairs.only(~rows))) for rows in left_out])
    return float(errors.sum() / pairs.weights.sum())


def _fit_affine(pairs: ColourPairs) -> Affine:
    known, weights = _with_one(pairs.plain), pairs.weights.unsqueeze(1)
    prior = AFFINE_PRIOR * pairs.weights.sum() * torch.eye(4)
    change = torch.linalg.solve((known * weights).T @ known + prior, (known * weights).T @ (pairs.liked - pairs.plain))
    return Affine(torch.eye(4)[:, :3] + change)


def _fit_scale(pairs: ColourPairs) -> Scale:
    """One least-squares problem of all channels, since they have the same share of the colour before."""
    root, total, size = pairs.weights.sqrt(), pairs.weights.sum(), 1 + 3 * KNOTS
    hats, bend = _hats(pairs.plain) * root.unsqueeze(1), _bends()
    normal, wanted = SCALE_PRIOR * total * torch.eye(size), torch.zeros(size)
    for channel in range(3):
        rows = torch.zeros(len(hats), size)
        knots = slice(1 + channel * KNOTS, 1 + (channel + 1) * KNOTS)
        rows[:, 0], rows[:, knots] = pairs.plain[:, channel] * root, hats
        normal, wanted = normal + rows.T @ rows, wanted + rows.T @ (pairs.liked[:, channel] * root)
        normal[knots, knots] += BEND_PRIOR * total * bend
    found = torch.linalg.solve(normal, wanted)
    return Scale(found[0], found[1:].view(3, KNOTS).T)


def _fit_steps(count: int, saturation: float) -> Fit:
    def fit(pairs: ColourPairs) -> Steps:
        cut, weights = _cut(pairs.plain, count, saturation), pairs.weights.unsqueeze(1)
        lightness = (weights * cut.square()).sum()
        white = float((weights * cut * pairs.liked).sum() / lightness.clamp_min(1e-6))
        return Steps(count, saturation, min(1.0, max(0.5, white)) if float(lightness) > 1 else USUAL_WHITE)

    return fit


def _with_one(colours: Tensor) -> Tensor:
    return torch.cat([colours, torch.ones(len(colours), 1)], dim=1)


def _hats(colours: Tensor) -> Tensor:
    """How near [N, KNOTS] the brightness of colours is to every knot: piecewise linear."""
    places = _brightness(colours) * (KNOTS - 1)
    return (1 - (places.unsqueeze(1) - torch.arange(KNOTS)).abs()).clamp_min(0)


def _brightness(colours: Tensor) -> Tensor:
    return colours @ colours.new_tensor(LUMINANCE)


def _bends() -> Tensor:
    """The quadratic form [KNOTS, KNOTS] of a scale's second differences."""
    bends = torch.eye(KNOTS)[:-2] - 2 * torch.eye(KNOTS)[1:-1] + torch.eye(KNOTS)[2:]
    return bends.T @ bends


def _cut(colours: Tensor, count: int, saturation: float) -> Tensor:
    light = _brightness(colours).unsqueeze(1)
    strong = (light + (colours - light) * saturation).clamp(0, 1)
    return (strong * count).floor().clamp_max(count - 1) / (count - 1)
