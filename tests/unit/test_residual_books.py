"""Codebooks of a residual vector quantizer, by hand arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pigeon_cli.training.residual_books import fit_books, nearest, quantize


def same(vectors: Tensor) -> Tensor:
    """The metric by which all numbers of a vector count alike."""
    return torch.eye(vectors.shape[1])


def rebuilt(vectors: Tensor, books: Tensor) -> Tensor:
    indices = quantize(vectors, books, same(vectors)).long()
    return torch.stack([book[row] for book, row in zip(books, indices, strict=True)]).sum(0)


def test_one_level_holds_as_many_different_points_as_it_has_entries() -> None:
    points = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, -8.0]])
    vectors = points[torch.tensor([0, 0, 0, 1, 2, 2])]
    books = fit_books(vectors, 1, same(vectors), entries=4)
    assert books[0, 0].tolist() == [0.0, 0.0]
    assert sorted(books[0, 1:].tolist()) == [[0.0, -8.0], [0.0, 0.0], [4.0, 0.0]]
    assert (rebuilt(vectors, books) == vectors).all()


def test_an_entry_is_the_mean_of_what_is_nearest_to_it() -> None:
    vectors = torch.tensor([[0.0], [2.0], [100.0], [104.0], [108.0]])
    books = fit_books(vectors, 1, same(vectors), entries=3)
    assert books.flatten().tolist()[0] == 0
    assert sorted(books.flatten().tolist()) == [0.0, 1.0, 104.0]


def test_a_level_holds_what_those_before_it_leave_over() -> None:
    vectors = torch.tensor([[9.0], [11.0], [99.0], [101.0]])
    books = fit_books(vectors, 2, same(vectors), entries=3)
    assert sorted(books[0].flatten().tolist()) == [0.0, 10.0, 100.0]
    assert sorted(books[1].flatten().tolist()) == [-1.0, 0.0, 1.0]
    assert (rebuilt(vectors, books) == vectors).all()


def test_indices_are_those_of_the_nearest_sum() -> None:
    books = torch.tensor([[[0.0], [10.0]], [[-6.0], [0.5]]])
    # The nearest entry for 4 is 0, but 10 - 6 is nearer than 0 + 0.5.
    vectors = torch.tensor([[4.0], [0.0], [11.0]])
    assert quantize(vectors, books, same(vectors)).tolist() == [[1, 0, 1], [0, 1, 1]]


def test_the_error_falls_with_every_level_and_a_seed_fits_the_same_books() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(3000, 6)
    books = fit_books(vectors, 4, same(vectors), entries=16)
    errors = [float((rebuilt(vectors, books[:levels]) - vectors).square().mean()) for levels in range(1, 5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.5 * errors[0]
    assert (fit_books(vectors, 4, same(vectors), entries=16) == books).all()
    assert (books.bfloat16().float() == books).all()


def test_fewer_different_points_than_entries_are_no_trouble() -> None:
    books = fit_books(torch.ones(5, 2), 2, torch.eye(2), entries=4)
    assert books[0].tolist() == [[0.0, 0.0], *[[1.0, 1.0]] * 3]
    assert books[1].tolist() == [[0.0, 0.0]] * 4


def test_what_the_metric_makes_heavy_is_kept_first() -> None:
    vectors = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    alike, heavy = torch.eye(2), torch.diag(torch.tensor([1.0, 10.0]))
    # One level of two entries tells apart what differs most: the first number, or the second where it weighs ten times.
    assert sorted(fit_books(vectors, 1, alike, entries=3)[0, 1:].tolist()) == [[0.0, 0.5], [3.0, 0.5]]
    books = fit_books(vectors, 1, heavy, entries=3)
    assert sorted(books[0, 1:].tolist()) == [[1.5, 0.0], [1.5, 1.0]]
    far, near = torch.tensor([[[0.0, 0.9], [2.0, 0.0]]]), torch.tensor([[1.9, 0.9]])
    assert quantize(near, far, alike).tolist() == [[1]]
    assert quantize(near, far, heavy).tolist() == [[0]]


def test_levels_that_say_less_than_they_cost_say_nothing() -> None:
    books = torch.tensor([[[0.0], [10.0]], [[0.0], [2.0]], [[0.0], [0.5]]])
    vectors = torch.tensor([[12.5], [10.5], [2.0], [0.1]])
    free = [[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]]
    assert quantize(vectors, books, same(vectors)).tolist() == free
    # The last level takes 0.25 off the errors of the first two.
    assert quantize(vectors, books, same(vectors), 0.2).tolist() == free
    assert quantize(vectors, books, same(vectors), 0.3).tolist() == [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    # The second takes 6 off that of the first, and 4 off that of the third.
    assert quantize(vectors, books, same(vectors), 5.0).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("count", [1, 2**14 + 3])
def test_the_nearest_entry_is_found_for_any_number_of_vectors(count: int) -> None:
    torch.manual_seed(1)
    vectors, book = torch.randn(count, 3), torch.randn(7, 3)
    assert (nearest(vectors, book) == torch.cdist(vectors, book).argmin(1)).float().mean() > 0.999
