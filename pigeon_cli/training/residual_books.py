"""Codebooks of a residual vector quantizer, level after level: each by k-means of what the levels before leave over."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.memory import ENTRIES

ROUNDS: Final = 25
"""Of Lloyd's algorithm on each level; after them the error falls by less than a thousandth a round."""
AT_ONCE: Final = 2**14
"""Vectors whose distances are held at a time: 16 MB."""
BEAMS: Final = 8
START: Final = 2**14
"""Vectors among which the first centres are chosen."""


def fit_books(vectors: Tensor, levels: int, metric: Tensor, entries: int = ENTRIES, seed: int = 0) -> Tensor:
    """Codebooks [levels, entries, width] of ``vectors`` [N, width], float32 with values that bfloat16 can hold.

    What counts is the length of a difference times ``metric`` [width, width]. Rounding comes before the next level is
    fitted, which thus makes up for it. The first entry of each book is zero: a level that says nothing.
    """
    left, books, back = vectors.float() @ metric, [], torch.linalg.inv(metric)
    for level in range(levels):
        stream = torch.Generator().manual_seed(stream_seed(seed, "residual books", level))
        centres = (_k_means(left, entries - 1, stream) @ back).bfloat16().float()
        book = torch.cat([torch.zeros_like(centres[:1]), centres])
        left = left - (book @ metric)[nearest(left, book @ metric)]
        books.append(book)
    return torch.stack(books)


def quantize(vectors: Tensor, books: Tensor, metric: Tensor, price: float = 0.0) -> Tensor:
    """Indices uint8 [levels, N] whose entries' sum is nearest to ``vectors`` [N, width] by ``metric``, as far as a
    search finds.

    The entry that is nearest on one level is not always best for the next ones: :data:`BEAMS` choices are followed,
    which takes an eighth off the squared error of six levels. The last levels say nothing (0) where that costs less in
    squared error than ``price``, if there is one, for each of their indices: long runs of zeros take next to no bytes.
    """
    parts, scaled = vectors.split(AT_ONCE // BEAMS), books @ metric
    return torch.cat([_worth_saying(part.float() @ metric, scaled, price) for part in parts], dim=1)


def nearest(vectors: Tensor, book: Tensor) -> Tensor:
    """The number int64 [N] of the entry of ``book`` [entries, width] that is nearest to each of ``vectors``."""
    lengths = book.square().sum(1)
    return torch.cat([(lengths - 2 * part @ book.T).argmin(1) for part in vectors.split(AT_ONCE)])


def _worth_saying(vectors: Tensor, books: Tensor, price: float) -> Tensor:
    """:func:`quantize` for few vectors at a time, both times the metric."""
    indices = _search(vectors, books)
    if not price:
        return indices
    left, errors = vectors, [vectors.square().sum(1)]
    for level, book in enumerate(books):
        left = left - book[indices[level].long()]
        errors.append(left.square().sum(1))
    told = functional.pad((indices > 0).long().cumsum(0), (0, 0, 1, 0))
    worth = (torch.stack(errors) + price * told).argmin(0)
    return indices.masked_fill(torch.arange(len(books)).unsqueeze(1) >= worth, 0)


def _search(vectors: Tensor, books: Tensor) -> Tensor:
    """Indices uint8 [levels, N]."""
    left = vectors.unsqueeze(1)
    indices = torch.zeros(len(vectors), 1, 0, dtype=torch.uint8)
    for book in books:
        errors = left.square().sum(2, keepdim=True) - 2 * left @ book.T + book.square().sum(1)
        count = min(BEAMS, errors.shape[1] * errors.shape[2])
        best = errors.flatten(1).topk(count, dim=1, largest=False).indices
        before, entry = best.div(len(book), rounding_mode="floor").unsqueeze(2), best % len(book)
        left = left.take_along_dim(before, 1) - book[entry]
        indices = torch.cat([indices.take_along_dim(before, 1), entry.unsqueeze(2).to(torch.uint8)], dim=2)
    # Sorted by their errors, the best first.
    return indices[:, 0].T


def _k_means(vectors: Tensor, entries: int, stream: torch.Generator) -> Tensor:
    centres = _first_centres(vectors, entries, stream)
    for _ in range(ROUNDS):
        found = nearest(vectors, centres)
        counts = torch.bincount(found, minlength=entries).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, found, vectors)
        # An entry that is nearest to nothing waits where it is.
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    return centres


def _first_centres(vectors: Tensor, entries: int, stream: torch.Generator) -> Tensor:
    """As k-means++: each the likelier, the farther it is from all before; much of what is white paper is alike."""
    some = vectors[torch.randperm(len(vectors), generator=stream)[:START]]
    chosen, distances = [some[0]], some.new_full((len(some),), torch.inf)
    while len(chosen) < entries:
        distances = torch.minimum(distances, (some - chosen[-1]).square().sum(1))
        # Where there are fewer different vectors than entries, any of them.
        likely = distances if bool(distances.any()) else torch.ones_like(distances)
        chosen.append(some[torch.multinomial(likely, 1, generator=stream)[0]])
    return torch.stack(chosen)
