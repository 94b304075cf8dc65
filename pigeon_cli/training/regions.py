"""Regions of plain pictures and what forests are told of them and of their places (:mod:`forest_finishes`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.segmentation import felzenszwalb
from torch import Tensor

from pigeon_cli.training.figures import to_images

Pixels = NDArray[np.uint8]
"""[S, S, 3]."""
Labels = NDArray[np.int64]
"""[S, S]: the number of every pixel's region."""
Numbers = NDArray[np.float64]

GRADUAL, SMOOTHED, SMALLEST = 60.0, 0.4, 10
"""How large a change within a region may be for its size (the ``scale`` of Felzenszwalb and Huttenlocher, *Efficient
Graph-Based Image Segmentation*, 2004), the deviation of the blur before, and the fewest pixels of a region."""
BESIDE: Final = 2
"""Pixels around a region that tell what lies beside it."""
BLURS, STEEP = (1.0, 2.5, 6.0, 14.0), (1.0, 2.5)
"""Deviations of what is told of a place's surroundings: their colours, and how these change."""
AROUND: Final = 8.0
"""And of how much is drawn about there."""
PAPER: Final = 97.0
"""Least lightness of a region at the edge that is paper."""


def pixels_of(pictures: Iterable[Tensor]) -> list[Pixels]:
    """Those of pictures [3, S, S] in 0..1."""
    return [np.asarray(image) for image in to_images(torch.stack(list(pictures)))]


def lab(colours: NDArray[Any]) -> Numbers:
    """Colours [..., 3] of 0..255 in CIELAB, where distances are as people see them."""
    found: Numbers = rgb2lab(colours / 255)
    return found


def enlarged(values: Numbers, times: int) -> Numbers:
    """Numbers [S, S] at so many times the size, each where it was."""
    if times == 1:
        return values
    larger: Numbers = ndimage.zoom(values, times, order=1, mode="nearest", grid_mode=True)
    return larger


def regions(picture: Pixels) -> Labels:
    """Stretches of gradual change, numbered from 0."""
    found: Labels = felzenszwalb(picture, scale=GRADUAL, sigma=SMOOTHED, min_size=SMALLEST)
    return found


def told_of_regions(picture: Pixels, labels: Labels) -> Numbers:
    """Of every region [regions, N] its colours, those beside it, its size, its place, whether it ends at the edge."""
    colours, side = lab(picture), len(picture)
    steep = ndimage.gaussian_gradient_magnitude(colours[..., 0], 1.0)
    told = []
    for around, inside in _each_region(labels, BESIDE):
        beside = ndimage.binary_dilation(inside, iterations=BESIDE) & ~inside
        own, others = colours[around][inside], colours[around][beside]
        places = np.stack(np.nonzero(inside), axis=1) + [part.start for part in around]
        row = [
            own.mean(0),
            own.std(0),
            np.percentile(own, [10, 50, 90], axis=0).ravel(),
            others.mean(0) if len(others) else np.zeros(3),
            [np.log(len(own))],
            places.mean(0) / side,
            [steep[around][inside].mean(), places.min() == 0 or places.max() == side - 1],
        ]
        told.append(np.concatenate(row))
    return np.array(told)


def usual_colours(picture: Pixels, labels: Labels) -> Numbers:
    """The median colour of every region [regions, 3], away from its border where there is room."""
    found = []
    for around, inside in _each_region(labels, 1):
        within = ndimage.binary_erosion(inside)
        found.append(np.median(picture[around][within if within.sum() >= 4 else inside], axis=0))
    return np.array(found)


class Places:
    """The places of a picture, ``finer`` times as many each way as it has pixels, and what a forest is told of them."""

    def __init__(self, picture: Pixels, finer: int = 1) -> None:
        labels, colours, side = regions(picture), lab(picture), len(picture)
        numbers = range(labels.max() + 1)
        mean = np.stack([ndimage.mean(colours[..., channel], labels, numbers) for channel in range(3)], axis=1)
        uneven = ndimage.standard_deviation(colours[..., 0], labels, numbers)
        size = np.log(np.bincount(labels.ravel()))
        rank = mean[:, 0].argsort().argsort() / max(1, len(numbers) - 1)
        paper = _paper(labels, mean[:, 0])
        boxes = np.array(
            [[each for part in box for each in (part.start, part.stop)] for box in ndimage.find_objects(labels + 1)]
        )
        own = np.kron(labels, np.ones((finer, finer), dtype=labels.dtype))
        other, off, nearest = _across(own)
        rows, columns = np.mgrid[: side * finer, : side * finer]
        self.colours = colours
        """Of the picture, [S, S, 3] in CIELAB."""
        self.off: Numbers = off
        """How far the nearest border is."""
        self.paper_off = _off(paper[own])
        """How far what is drawn is, 0 on it."""
        told = [
            *(mean[own, channel] for channel in range(3)), uneven[own], size[own], rank[own], paper[own],
            *(mean[other, channel] for channel in range(3)), size[other], paper[other],
            mean[own, 0] - mean[other, 0], off, _off(~paper[own]), self.paper_off,
            *((there - here) / (off + 1) for there, here in zip(nearest, (rows, columns), strict=True)),
            *_within(boxes[own] * finer, rows, columns),
            *_within(_drawn_box(paper[labels], side) * finer, rows, columns)[:2],
            rows / (side * finer), np.abs(columns / (side * finer) - 0.5),
            *(enlarged(colours[..., channel], finer) for channel in range(3)),
            *(
                enlarged(ndimage.gaussian_filter(colours[..., channel], blur), finer)
                for blur in BLURS
                for channel in range(3)
            ),
            *(enlarged(ndimage.gaussian_gradient_magnitude(colours[..., 0], blur), finer) for blur in STEEP),
            enlarged(ndimage.gaussian_filter((~paper[labels]).astype(np.float64), AROUND), finer),
        ]  # fmt: skip
        self.told = np.stack(told, axis=-1).reshape(-1, len(told)).astype(np.float32)
        """float32 [places, N]."""


def _each_region(labels: Labels, wider: int) -> Iterator[tuple[tuple[slice, ...], NDArray[np.bool_]]]:
    """Of every region in order the box around it, ``wider`` on all sides, and which of that is the region."""
    for label, box in enumerate(ndimage.find_objects(labels + 1)):
        around = tuple(slice(max(0, part.start - wider), part.stop + wider) for part in box)
        yield around, labels[around] == label


def _paper(labels: Labels, lightness: Numbers) -> NDArray[np.bool_]:
    """Which regions are paper: those as white at the edge of the picture."""
    at_edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    paper = np.zeros(len(lightness), dtype=bool)
    paper[at_edge] = lightness[at_edge] > PAPER
    return paper


def _off(outside: NDArray[np.bool_]) -> Numbers:
    """How far every place is from the nearest that is not ``outside``; where there is none, as far as can be."""
    if outside.all():
        return np.full(outside.shape, float(len(outside)))
    off: Numbers = ndimage.distance_transform_edt(outside)
    return off


def _drawn_box(paper: NDArray[np.bool_], side: int) -> Numbers:
    """First and last row and column of what is drawn, as a box of :func:`_within`."""
    found = ndimage.find_objects((~paper).astype(np.int64))
    return np.array([each for part in found[0] for each in (part.start, part.stop)] if found else [0, side, 0, side])


def _within(box: Numbers, rows: Labels, columns: Labels) -> list[Numbers]:
    """Where places are in boxes [..., 4] of first and last row and column, from 0 to 1, and how large these are."""
    top, bottom, left, right = np.moveaxis(box.astype(np.float64), -1, 0)
    tall, wide = bottom - top, right - left
    whole = np.ones(rows.shape)
    return [(rows - top) / tall, (columns - left) / wide, tall * whole, wide * whole]


def _across(labels: Labels) -> tuple[Labels, Numbers, Labels]:
    """Which region lies across the nearest border, its own where there is none; how far the border is; and its row and
    column, [2, S, S]."""
    around = np.pad(labels, 1, mode="edge")
    beside = np.stack([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]])
    differs = beside != labels
    if not differs.any():
        return labels, np.full(labels.shape, float(len(labels))), np.indices(labels.shape)
    across = np.take_along_axis(beside, differs.argmax(0)[None], axis=0)[0]
    off, where = ndimage.distance_transform_edt(~differs.any(0), return_indices=True)
    nearest = labels[where[0], where[1]]
    return np.where(nearest == labels, across[where[0], where[1]], nearest), off, where
