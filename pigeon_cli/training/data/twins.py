"""Near-identical drawings, which must share one split cell (DESIGN.md section 3)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_PEOPLE = frozenset(
    {"man", "woman", "person", "people", "men", "women", "boy", "girl"}
    | {"male", "female", "adult", "lady", "guy", "mens", "womens"}
)
_THUMBNAIL = 16
_CLOSE_UP = 64
# Root mean square differences in 0..1 over white. The thumbnail only nominates pairs, the close-up decides:
# on the nine sets a re-export of one drawing differs by less than 0.02, the two hands of a clock by 0.049 and more.
_THUMBNAIL_LIMIT = 0.045
_CLOSE_UP_LIMIT = 0.035
_HASH_LIMIT = 16
_BLOCK = 1024


class UnionFind:
    """Groups of the numbers 0..size-1, merged pair by pair."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, item: int) -> int:
        """Smallest member of the group of ``item``."""
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def union(self, first: int, second: int) -> None:
        """Merge two groups."""
        low, high = sorted((self.find(first), self.find(second)))
        self._parent[high] = low


def person_base(name: str) -> str:
    """``name`` without the words that tell man, woman and person variants apart: 'woman-cook' -> 'cook'."""
    name = name.removesuffix("-facing-right")
    return "-".join(part for part in name.split("-") if part not in _PEOPLE)


def twin_groups(
    images: NDArray[np.uint8], sets: Sequence[str], names: Sequence[str], bodies: Sequence[str]
) -> list[int]:
    """Group number (smallest member) of each of N drawings: uint8 [N, H, W, 4], with its set, name and SVG body.

    Two are twins when they are man/woman/person variants of one name in one set, when they share an SVG body, or when
    their pixels over white nearly agree, in whatever sets they are.
    """
    groups = UnionFind(len(names))
    for keys in (
        [(style, person_base(name)) for style, name in zip(sets, names, strict=True)],
        [("body", body) for body in bodies],
    ):
        for first, second in _same_key(keys):
            groups.union(first, second)
    for first, second in near_identical(images):
        groups.union(first, second)
    return [groups.find(item) for item in range(len(names))]


def _same_key(keys: Iterable[Hashable]) -> Iterator[tuple[int, int]]:
    first_with: dict[Hashable, int] = {}
    for number, key in enumerate(keys):
        if first_with.setdefault(key, number) != number:
            yield first_with[key], number


def near_identical(images: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Pairs (first < second) of uint8 [N, H, W, 4] whose pixels and difference hashes nearly agree over white."""
    close = np.concatenate([_over_white(images[i : i + _BLOCK], _CLOSE_UP) for i in range(0, len(images), _BLOCK)])
    small = _shrink(close.astype(np.float32) / np.float32(255), _THUMBNAIL).reshape(len(images), -1)
    hashes = _difference_hash(close)
    return [
        (first, second)
        for first, second in _nominated(small)
        if _distance(close[first], close[second]) < _CLOSE_UP_LIMIT
        and int((hashes[first] != hashes[second]).sum()) <= _HASH_LIMIT
    ]


def _nominated(vectors: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    limit = _THUMBNAIL_LIMIT**2 * vectors.shape[1]
    norms = (vectors**2).sum(axis=1)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        squared = norms[start : start + len(block), None] + norms[None, start:] - 2 * block @ vectors[start:].T
        for row, column in np.argwhere(squared < limit):
            if row < column:
                yield start + int(row), start + int(column)


def _over_white(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    pixels = images.astype(np.float32)
    alpha = pixels[..., 3:] / np.float32(255)
    side = min(size, images.shape[1])
    return np.rint(_shrink(pixels[..., :3] * alpha + np.float32(255) * (1 - alpha), side)).astype(np.uint8)


def _shrink(pixels: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Box means [N, H, W, C] -> [N, size, size, C]; H must be a multiple of ``size``."""
    count, height, _, channels = pixels.shape
    step = height // size
    means: NDArray[np.float32] = pixels.reshape(count, size, step, size, step, channels).mean(axis=(2, 4))
    return means


def _difference_hash(close: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Bit per neighbour of a 16x16 grey image: is it brighter by more than a tie; bool [N, 480]."""
    grey = _shrink(close.astype(np.float32).mean(axis=3, keepdims=True), _THUMBNAIL)[..., 0]
    across = (grey[:, :, 1:] - grey[:, :, :-1]) > 2
    down = (grey[:, 1:] - grey[:, :-1]) > 2
    return np.concatenate([across.reshape(len(grey), -1), down.reshape(len(grey), -1)], axis=1)


def _distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    difference = (first.astype(np.float32) - second.astype(np.float32)) / 255
    return float(np.sqrt((difference**2).mean()))
