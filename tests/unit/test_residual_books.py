"""Codebooks of a residual vector quantizer, by hand arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pigeon_cli.training.residual_books import fit_books, nearest, quantize


def rebuilt(vectors: Tensor, books: Tensor) -> Tensor:
    indices = quantize(vectors, books).long()
    return torch.stack([book[row] for book, row in zip(books, indices, strict=True)]).sum(0)


def test_one_level_holds_as_many_different_points_as_it_has_entries() -> None:
    points = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, -8.0]])
    vectors = points[torch.tensor([0, 0, 0, 1, 2, 2])]
    books = fit_books(vectors, levels=1, entries=3)
    assert sorted(books[0].tolist()) == [[0.0, -8.0], [0.0, 0.0], [4.0, 0.0]]
    assert (rebuilt(vectors, books) == vectors).all()


def test_an_entry_is_the_mean_of_what_is_nearest_to_it() -> None:
    books = fit_books(torch.tensor([[0.0], [2.0], [100.0], [104.0], [108.0]]), levels=1, entries=2)
    assert sorted(books.flatten().tolist()) == [1.0, 104.0]


def test_a_level_holds_what_those_before_it_leave_over() -> None:
    vectors = torch.tensor([[9.0], [11.0], [99.0], [101.0]])
    books = fit_books(vectors, levels=2, entries=2)
    assert sorted(books[0].flatten().tolist()) == [10.0, 100.0]
    assert sorted(books[1].flatten().tolist()) == [-1.0, 1.0]
    assert (rebuilt(vectors, books) == vectors).all()


def test_indices_are_those_of_the_nearest_sum() -> None:
    books = torch.tensor([[[0.0], [10.0]], [[-6.0], [0.5]]])
    # The nearest entry for 4 is 0, but 10 - 6 is nearer than 0 + 0.5.
    assert quantize(torch.tensor([[4.0], [0.0], [11.0]]), books).tolist() == [[1, 0, 1], [0, 1, 1]]


def test_the_error_falls_with_every_level_and_a_seed_fits_the_same_books() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(3000, 6)
    books = fit_books(vectors, levels=4, entries=16)
    errors = [float((rebuilt(vectors, books[:levels]) - vectors).square().mean()) for levels in range(1, 5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.5 * errors[0]
    assert (fit_books(vectors, levels=4, entries=16) == books).all()
    assert (books.bfloat16().float() == books).all()


def test_fewer_different_points_than_entries_are_no_trouble() -> None:
    books = fit_books(torch.ones(5, 2), levels=2, entries=4)
    assert books[0].tolist() == [[1.0, 1.0]] * 4
    assert books[1].tolist() == [[0.0, 0.0]] * 4


@pytest.mark.parametrize("count", [1, 2**14 + 3])
def test_the_nearest_entry_is_found_for_any_number_of_vectors(count: int) -> None:
    torch.manual_seed(1)
    vectors, book = torch.randn(count, 3), torch.randn(7, 3)
    assert (nearest(vectors, book) == torch.cdist(vectors, book).argmin(1)).float().mean() > 0.999
