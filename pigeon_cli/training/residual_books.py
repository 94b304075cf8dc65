"""Codebooks of a residual vector quantizer, level after level: each by k-means of what the levels before leave over."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.memory import ENTRIES

ROUNDS: Final = 25
"""Of Lloyd's algorithm on each level; after them the error falls by less than a thousandth a round."""
AT_ONCE: Final = 2**14
"""Vectors whose distances are held at a time: 16 MB."""
START: Final = 2**14
"""Vectors among which the first centres are chosen."""


def fit_books(vectors: Tensor, levels: int, entries: int = ENTRIES, seed: int = 0) -> Tensor:
    """Codebooks [levels, entries, width] of ``vectors`` [N, width], float32 with values that bfloat16 can hold.

    Rounding comes before the next level is fitted, which thus makes up for it.
    """
    left, books = vectors.float(), []
    for level in range(levels):
        stream = torch.Generator().manual_seed(stream_seed(seed, "residual books", level))
        book = _k_means(left, entries, stream).bfloat16().float()
        left = left - book[nearest(left, book)]
        books.append(book)
    return torch.stack(books)


def quantize(vectors: Tensor, books: Tensor) -> Tensor:
    """Indices uint8 [levels, N] of ``vectors`` [N, width]: on each level the entry nearest to what is left over."""
    left, indices = vectors.float(), []
    for book in books:
        found = nearest(left, book)
        left = left - book[found]
        indices.append(found.to(torch.uint8))
    return torch.stack(indices)


def nearest(vectors: Tensor, book: Tensor) -> Tensor:
    """The number int64 [N] of the entry of ``book`` [entries, width] that is nearest to each of ``vectors``."""
    lengths = book.square().sum(1)
    return torch.cat([(lengths - 2 * part @ book.T).argmin(1) for part in vectors.split(AT_ONCE)])


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
