"""Losses against hand arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from pigeon_cli.training.losses import (
    NearCodes,
    SoftCrossEntropy,
    dpo_loss,
    mask_supervision_loss,
    nearest_codes,
    reconstruction_loss,
    sequence_log_probability,
)

LOGITS = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]]))


def test_labels_are_shifted_and_ignored() -> None:
    labels = torch.tensor([[2, 1, -100]])
    assert float(reconstruction_loss(LOGITS, labels)) == pytest.approx(math.log(4))
    labels = torch.tensor([[-100, 0, 2]])
    assert float(reconstruction_loss(LOGITS, labels)) == pytest.approx(-(math.log(0.5) + math.log(0.7)) / 2)
    assert float(sequence_log_probability(LOGITS, labels)) == pytest.approx(math.log(0.5) + math.log(0.7))


def test_rows_without_labels() -> None:
    nothing = torch.full((1, 3), -100)
    assert float(reconstruction_loss(LOGITS, nothing)) == 0.0
    assert sequence_log_probability(LOGITS, nothing).tolist() == [0.0]


def test_soft_targets_fall_on_codes_only() -> None:
    near = NearCodes(table=torch.tensor([[1], [0]]), first_code=1, label_share=0.9)
    code = reconstruction_loss(LOGITS, torch.tensor([[-100, 1, -100]]), near)
    assert float(code) == pytest.approx(-0.9 * math.log(0.25) - 0.1 * math.log(0.25))
    targets, weights = near.soft_targets(torch.tensor([0, 2]))
    assert targets[:, 0].tolist() == [0, 2] and targets[1].tolist() == [2, 1]
    assert weights.flatten().tolist() == pytest.approx([1.0, 0.0, 0.9, 0.1])
    code = reconstruction_loss(LOGITS, torch.tensor([[-100, -100, 2]]), near)
    assert float(code) == pytest.approx(-0.9 * math.log(0.7) - 0.1 * math.log(0.2))
    other = reconstruction_loss(LOGITS, torch.tensor([[-100, 0, -100]]), near)
    assert float(other) == pytest.approx(-math.log(0.5))


def test_nearest_codes_leave_the_code_itself_out() -> None:
    codebook = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 5.0]])
    assert nearest_codes(codebook, 1).tolist() == [[1], [0], [1]]


def test_equal_policies_cost_ln_two() -> None:
    values = torch.tensor([-3.0, -4.0])
    loss = dpo_loss(values, values - 1, values, values - 1)
    assert loss.losses.tolist() == pytest.approx([math.log(2)] * 2)
    better = dpo_loss(values + 1, values - 2, values, values - 1)
    assert float(better.mean) == pytest.approx(-math.log(1 / (1 + math.exp(-0.2))))
    assert better.chosen_rewards.tolist() == pytest.approx([0.1, 0.1])


def test_mask_supervision() -> None:
    margin = torch.tensor([[0.0, 2.0, -50.0]])
    planted = torch.tensor([[True, False, False]])
    scored = torch.tensor([[True, True, False]])
    expected = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    assert float(mask_supervision_loss(margin, planted, scored)) == pytest.approx(expected)
    assert float(mask_supervision_loss(margin, planted, torch.zeros_like(scored))) == 0.0


def test_soft_cross_entropy_is_that_of_autograd_beyond_one_part() -> None:
    torch.manual_seed(0)
    logits = torch.randn(600, 11, requires_grad=True)
    targets = torch.stack([torch.randperm(11)[:3] for _ in range(600)])
    weights = torch.tensor([0.9, 0.05, 0.05]).expand(600, 3)
    soft, hard = SoftCrossEntropy.apply(logits, targets, weights)
    (soft * torch.arange(600)).sum().backward()
    found = logits.grad
    twin = logits.detach().clone().requires_grad_()
    wanted = -(torch.log_softmax(twin, dim=1).gather(1, targets) * weights).sum(1)
    (wanted * torch.arange(600)).sum().backward()
    torch.testing.assert_close(soft, wanted)
    torch.testing.assert_close(hard, -torch.log_softmax(twin, dim=1).gather(1, targets[:, :1])[:, 0])
    torch.testing.assert_close(found, twin.grad)
