"""Metrics against hand values and independent formulas in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from pigeon_cli.metrics.frechet import frechet_distance
from pigeon_cli.metrics.intervals import bootstrap_difference, bootstrap_mean, wilson
from pigeon_cli.metrics.similarity import cosine_scores
from pigeon_cli.metrics.structure import SCALE_WEIGHTS, pyramid, structural_similarity


def noisy_pair(side: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(2, 3, side, side, generator=generator)
    return first, (first + 0.3 * torch.randn(2, 3, side, side, generator=generator)).clamp(0, 1)


def channel_parts(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Structure and luminance maps of one channel by weighted sums over whole windows."""
    bell = np.exp(-((np.arange(11) - 5.0) ** 2) / 4.5)
    weights = np.outer(bell, bell) / np.outer(bell, bell).sum()
    one, other = (sliding_window_view(each.astype(np.float64), (11, 11)) for each in (first, second))
    mean1, mean2 = (np.einsum("hwij,ij->hw", each, weights) for each in (one, other))
    off1, off2 = one - mean1[..., None, None], other - mean2[..., None, None]
    var1, var2, both = (np.einsum("hwij,ij->hw", each, weights) for each in (off1**2, off2**2, off1 * off2))
    return (2 * both + 0.03**2) / (var1 + var2 + 0.03**2), (2 * mean1 * mean2 + 1e-4) / (mean1**2 + mean2**2 + 1e-4)


def ssim(first: Tensor, second: Tensor) -> Tensor:
    return structural_similarity(pyramid(first), pyramid(second))[0]


def multiscale_ssim(first: Tensor, second: Tensor) -> Tensor:
    return structural_similarity(pyramid(first), pyramid(second))[1]


def halved(channel: np.ndarray) -> np.ndarray:
    return channel.reshape(channel.shape[0] // 2, 2, channel.shape[1] // 2, 2).mean((1, 3))


def test_ssim_is_the_papers_formula_over_windows() -> None:
    first, second = noisy_pair(180)
    found = ssim(first, second)
    for place in range(2):
        parts = [channel_parts(first[place, c].numpy(), second[place, c].numpy()) for c in range(3)]
        assert found[place].item() == pytest.approx(np.mean([(s * lum).mean() for s, lum in parts]), abs=1e-5)


def test_multiscale_ssim_is_the_papers_product_of_scales() -> None:
    first, second = (images[:1, :2] for images in noisy_pair(176))
    products = []
    for channel in range(2):
        one, other, product = first[0, channel].numpy(), second[0, channel].numpy(), 1.0
        for scale, weight in enumerate(SCALE_WEIGHTS):
            if scale:
                one, other = halved(one), halved(other)
            structure, luminance = channel_parts(one, other)
            product *= ((structure * luminance if scale == 4 else structure).mean()) ** weight
        products.append(product)
    assert multiscale_ssim(first, second).item() == pytest.approx(np.mean(products), abs=1e-5)


@pytest.mark.parametrize("measure", [ssim, multiscale_ssim])
def test_the_same_image_scores_one_and_noise_less(measure: Callable[[Tensor, Tensor], Tensor]) -> None:
    first, second = noisy_pair(176)
    assert measure(first, first).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert (measure(first, second) < 0.9).all()
    assert measure(first, second).tolist() == pytest.approx(measure(second, first).tolist(), abs=1e-6)


def test_a_constant_shift_costs_luminance_alone() -> None:
    dark, light = torch.full((1, 3, 176, 176), 0.5), torch.full((1, 3, 176, 176), 0.6)
    luminance = (2 * 0.5 * 0.6 + 1e-4) / (0.25 + 0.36 + 1e-4)
    assert ssim(dark, light).item() == pytest.approx(luminance, abs=1e-4)
    assert multiscale_ssim(dark, light).item() == pytest.approx(luminance ** SCALE_WEIGHTS[-1], abs=1e-4)


def test_an_opposite_image_counts_as_zero_and_small_ones_are_refused() -> None:
    first, _ = noisy_pair(176)
    assert ssim(first, 1 - first).max() < 0
    assert multiscale_ssim(first, 1 - first).tolist() == [0, 0]
    with pytest.raises(ValueError, match="176"):
        multiscale_ssim(first[..., :170], first[..., :170])


def test_one_image_against_many_is_each_pair_alone() -> None:
    first, second = noisy_pair(176)
    for measure in (ssim, multiscale_ssim):
        alone = [measure(first[:1], each[None]).item() for each in second]
        # Products of another shape add up in another order.
        assert measure(first[:1], second).tolist() == pytest.approx(alone, abs=1e-5)


def test_cosine_scores_by_hand() -> None:
    found = cosine_scores(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [-6.0, -8.0]]))
    assert found.flatten().tolist() == pytest.approx([60, -100, 0, 0], abs=1e-4)


CROSS = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
"""Mean 0 and unbiased variance 2/3 along both axes."""


def test_frechet_distance_of_diagonal_gaussians_by_hand() -> None:
    stretched = CROSS * torch.tensor([2.0, 5.0]) + torch.tensor([3.0, -1.0])
    # |m|^2 + sum (s1 - s2)^2, deviations sqrt(2/3) times 1, 1 and 2, 5
    assert frechet_distance(CROSS, stretched) == pytest.approx(10 + 2 / 3 * (1 + 16), abs=1e-9)
    assert frechet_distance(CROSS, CROSS) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(40, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    second = torch.randn(30, 5, generator=generator) @ torch.randn(5, 5, generator=generator) + 1
    one, other = (np.cov(each.double().numpy(), rowvar=False) for each in (first, second))
    gap = first.double().mean(0) - second.double().mean(0)
    root = np.sqrt(np.linalg.eigvals(one @ other).real).sum()
    expected = float(gap @ gap) + np.trace(one) + np.trace(other) - 2 * root
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="no distance"):
        frechet_distance(first[:1], second)


def test_fewer_images_than_features_have_a_distance() -> None:
    generator = torch.Generator().manual_seed(2)
    first = torch.randn(4, 32, generator=generator)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(first, first + 2) == pytest.approx(32 * 4, rel=1e-4)


@pytest.mark.parametrize(
    ("wins", "count", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)]
)
def test_wilson_has_the_published_values(wins: int, count: int, low: float, high: float) -> None:
    found = wilson(wins, count)
    assert found is not None and (found.mean, found.count) == (wins / count, count)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match="wins"):
        wilson(count + 1, count)


def test_bootstrap_covers_what_the_normal_approximation_covers() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400).tolist()
    found = bootstrap_mean(values, [str(place) for place in range(400)])
    half = 1.96 * np.std(values) / math.sqrt(400)
    assert found is not None and found.low is not None and found.high is not None
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.03)
    assert bootstrap_mean(values, [str(place) for place in range(400)]) == found


def test_values_of_one_group_move_together_and_missing_ones_do_not_count() -> None:
    values, groups = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, None], ["a", "a", "a", "b", "b", "b", "c"]
    found = bootstrap_mean(values, groups)
    # Of two groups a quarter of the draws takes one of them twice, so both ends are reached.
    assert found is not None and (found.mean, found.low, found.high, found.count) == (0.5, 0.0, 1.0, 6)
    assert bootstrap_mean([None, None], ["a", "b"]) is None


def test_one_group_tells_nothing_about_others() -> None:
    found = bootstrap_mean([1.0, 3.0], ["a", "a"])
    assert found is not None and (found.mean, found.low, found.high) == (2.0, None, None)


def test_a_difference_is_paired() -> None:
    first = [float(place) for place in range(50)]
    second = [value + 1 for value in first]
    names = [str(place) for place in range(50)]
    found = bootstrap_difference(first, [*second[:-1], None], names)
    assert found is not None and (found.mean, found.low, found.high, found.count) == (1, 1, 1, 49)
    assert bootstrap_difference([None], [1.0], ["a"]) is None
