"""Counts, decisions and the training-free masks on numbers that can be checked by hand."""

from __future__ import annotations

import pytest
import torch

from pigeon_cli.core.configs import MaskGeneratorConfig
from pigeon_cli.core.errors import UsageError
from pigeon_cli.models.mask_generator import (
    HISTORY,
    PAD,
    REFERENCE,
    MaskGenerator,
    decide,
    gumbel_noise,
    image_agreement,
    keep_count,
)
from pigeon_cli.pipeline.mask import choose_mask, lay_out, reference_part, similarity_scores

GROUPS = torch.tensor([[HISTORY, HISTORY, HISTORY, HISTORY, REFERENCE, REFERENCE, PAD]])
SCORES = torch.tensor([[0.1, 0.4, 0.3, 0.2, -0.5, 0.5, 9.0]])


@pytest.mark.parametrize(
    ("count", "alpha", "kept"),
    [(10, "0.8", 2), (100, "0.9", 10), (185, "0.2", 148), (5, "1.0", 1), (5, "0.0", 5), (1, "0.5", 1), (3, "0.34", 1)],
)
def test_counts_are_exact(count: int, alpha: str, kept: int) -> None:
    assert keep_count(count, alpha) == kept


def test_best_of_each_group_stays() -> None:
    decision = decide(SCORES, GROUPS, 0.5, 0.5)
    assert decision.keep.tolist() == [[0, 1, 1, 0, 0, 1, 1]]


def test_inversion_touches_the_reference_only() -> None:
    for tau in (None, 0.5):
        decision = decide(SCORES, GROUPS, 0.5, 0.5, invert_reference=True, surrogate_tau=tau)
        assert decision.keep.tolist() == [[0, 1, 1, 0, 1, 0, 1]]


def test_alpha_per_request_from_float32() -> None:
    scores = torch.arange(10.0).repeat(2, 1)
    groups = torch.full((2, 10), REFERENCE)
    decision = decide(scores, groups, 0.2, torch.tensor([0.8, 0.3]))
    assert decision.keep.sum(1).tolist() == [2, 7]


def test_equal_scores_keep_the_earlier_token() -> None:
    decision = decide(torch.zeros(1, 4), torch.full((1, 4), HISTORY), 0.5, 0.0)
    assert decision.keep.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("tau", [None, 0.3])
def test_gradient_prefers_helpful_tokens(tau: float | None) -> None:
    scores = SCORES.clone().requires_grad_()
    decision = decide(scores, GROUPS, 0.5, 0.5, surrogate_tau=tau)
    decision.keep[0, 0].backward()
    assert scores.grad is not None
    assert scores.grad[0, 0] > 0
    assert (scores.grad[0, 1:4] <= 0).all()
    assert scores.grad[0, 4:].abs().sum() == 0


def test_surrogate_gradient_only_moves_differences() -> None:
    scores = SCORES.clone().requires_grad_()
    decision = decide(scores, GROUPS, 0.5, 0.5, surrogate_tau=0.3)
    (decision.keep * torch.tensor([[1.0, -2.0, 0.5, 3.0, 0.0, 0.0, 0.0]])).sum().backward()
    assert scores.grad is not None
    assert scores.grad[0, :4].sum() == pytest.approx(0.0, abs=1e-6)


def test_noise_does_not_depend_on_the_batch() -> None:
    def streams(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    both = gumbel_noise([3, 5], 8, streams(1, 2))
    alone = gumbel_noise([5], 5, streams(2))
    assert torch.equal(both[1, :5], alone[0])
    assert both[0, 3:].abs().sum() == 0


def test_positions_beyond_the_table_are_clamped() -> None:
    generator = MaskGenerator(MaskGeneratorConfig(width=8, heads=2, feed_forward=16, positions=5)).eval()
    tokens, types = torch.randn(1, 2, 8), torch.ones(1, 2, dtype=torch.int64)
    far = generator(tokens, torch.tensor([[4, 400]]), types)
    assert torch.equal(far, generator(tokens, torch.tensor([[4, 4]]), types))


def test_padding_changes_no_score() -> None:
    generator = MaskGenerator(MaskGeneratorConfig(width=8, heads=2, feed_forward=16, image_slots=3)).eval()
    tokens = torch.randn(1, 4, 8)
    positions, images = torch.tensor([[1, 2, 1, 0]]), torch.tensor([[1, 1, 0, 0]])
    types = torch.tensor([[HISTORY, HISTORY, REFERENCE, PAD]])
    with torch.no_grad():
        padded = generator(tokens, positions, types, images)[:, :3]
        bare = generator(tokens[:, :3], positions[:, :3], types[:, :3], images[:, :3])
    assert torch.allclose(padded, bare, atol=1e-6)


def test_similarity_by_hand() -> None:
    features = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 0.0]]])
    types = torch.tensor([[HISTORY, HISTORY, REFERENCE, PAD]])
    # Unit features less their mean (2/3, 1/3): (1/3, -1/3), (-2/3, 2/3), (1/3, -1/3).
    assert similarity_scores(features, types)[0].tolist() == pytest.approx([2 / 9, -4 / 9, -1 / 9, 0.0])


def test_similarity_counts_agreement_in_paper_for_less_than_agreement_in_drawing() -> None:
    paper, drawn = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    features = torch.tensor([[*[paper] * 6, drawn, drawn, drawn, *[paper] * 6, drawn]])
    types = torch.tensor([[HISTORY] * 9 + [REFERENCE] * 7])
    scores = similarity_scores(features, types)[0]
    assert scores[6] > scores[0] and scores[15] > scores[9]


def test_similarity_without_a_reference_is_zero() -> None:
    types = torch.tensor([[HISTORY, HISTORY]])
    assert similarity_scores(torch.randn(1, 2, 3), types).tolist() == [[0.0, 0.0]]


def test_masks_that_need_something_say_so() -> None:
    layout = lay_out([[[10, 11]]], [[12]], pad=2)
    for kind in ("learned", "similarity", "random", "nonsense"):
        with pytest.raises(UsageError):
            choose_mask(kind, layout, 0.2, 0.5)
    assert choose_mask("off", layout, 0.2, 0.5).keep.tolist() == [[1, 1, 1]]


def test_random_mask_counts() -> None:
    layout = lay_out([[list(range(10, 20))]], [list(range(20, 30))], pad=2)
    decision = choose_mask("random", layout, 0.2, 0.8, streams=[torch.Generator().manual_seed(3)])
    assert decision.keep[0, :10].sum() == 8
    assert decision.keep[0, 10:].sum() == 2


def test_reference_part() -> None:
    layout = lay_out([[[10]], [[10, 11]]], [[12, 13, 14], [15]], pad=2)
    keep = torch.tensor([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    ids, present, kept = reference_part(layout, keep, repack=False)
    assert ids[0].tolist() == [12, 13, 14]
    assert kept[0].tolist() == [0, 1, 1]
    assert present.tolist() == [[True, True, True], [True, False, False]]
    ids, present, _ = reference_part(layout, keep, repack=True)
    assert ids[0].tolist() == [13, 14]
    assert present.tolist() == [[True, True], [True, False]]


def test_image_layers_look_at_the_own_image_only() -> None:
    generator = MaskGenerator(MaskGeneratorConfig(8, 2, 1, 8, 18, 0.0, image_slots=3, image_layers=2)).eval()
    embeddings, positions = torch.randn(1, 4, 8), torch.tensor([[1, 2, 1, 2]])
    types, images = torch.full((1, 4), HISTORY), torch.tensor([[1, 1, 2, 2]])
    changed = embeddings.clone()
    changed[:, 2:] += torch.randn(2, 8)
    before, after = (generator.within_images(each, positions, types, images) for each in (embeddings, changed))
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-6)
    assert not torch.allclose(before[:, 2:], after[:, 2:], atol=1e-3)


def test_the_agreement_of_an_image_with_the_others_by_hand() -> None:
    east, north = [1.0, 0.0], [0.0, 1.0]
    vectors = torch.tensor([[north, east, east, north], [east, north, east, east]])
    present = torch.tensor([[False, True, True, True], [False, True, False, False]])
    found = image_agreement(vectors, present)
    assert found.tolist() == [[0, 0.5, 0.5, 0], [0, 0, 0, 0]]


def test_agreement_comes_on_top_of_the_scores_of_history_tokens() -> None:
    generator = MaskGenerator(MaskGeneratorConfig(8, 2, 1, 8, 18, 0.0, image_slots=3, image_layers=1)).eval()
    inputs = (
        torch.randn(1, 6, 8),
        torch.tensor([[1, 2, 1, 2, 1, 0]]),
        torch.tensor([[HISTORY, HISTORY, HISTORY, HISTORY, REFERENCE, PAD]]),
        torch.tensor([[1, 1, 2, 2, 0, 0]]),
    )
    own = torch.cosine_similarity(inputs[0], generator.hidden(*inputs), dim=-1)[0]
    vectors, present = generator.image_vectors(generator.within_images(*inputs), *inputs[2:])
    assert present.tolist() == [[False, True, True]]
    agreement = float((vectors[0, 1] @ vectors[0, 2]).detach())
    added = (generator(*inputs)[0] - own)[:5]
    assert torch.allclose(added, torch.tensor([*[2.0 * agreement] * 4, 0.0]), atol=1e-6)
    (generator(*inputs) * torch.randn(1, 6)).sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name
