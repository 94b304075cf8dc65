"""The critic of foretold drawings: its losses by hand, and that it learns to tell."""

from __future__ import annotations

import pytest
import torch

from pigeon_cli.training import drawing_critic
from pigeon_cli.training.drawing_critic import HALVINGS, JUDGED, DrawingCritic, critic_loss, feature_loss, passing_loss


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing_critic, "WIDTH", 8)
    torch.manual_seed(0)


def test_losses_are_those_computed_by_hand() -> None:
    drawn, foretold = [torch.tensor([2.0, 0.5]), torch.tensor([-1.0])], [torch.tensor([-3.0, 0.0]), torch.tensor([1.0])]
    # (0 + 0.5) / 2 + (0 + 1) / 2, and 2 + 2: 0.75 and 4.
    assert float(critic_loss(drawn, foretold)) == pytest.approx(2.375)
    assert float(passing_loss(foretold)) == pytest.approx(0.25)
    # |1 - 2| of 1.5, and 3 of 1.
    assert float(
        feature_loss([torch.tensor([1.0, -2.0]), torch.tensor([1.0])], [torch.tensor([2.0, -2.0]), torch.tensor([4.0])])
    ) == pytest.approx((0.5 / 1.5 + 3) / 2)


def test_verdicts_are_of_places_at_three_sizes_and_hang_on_the_hand() -> None:
    critic, pictures = DrawingCritic(3, 2), torch.rand(2, 3, 64, 64)
    none = torch.zeros(2, dtype=torch.int64)
    verdicts, features = critic(pictures, none, none)
    assert [tuple(each.shape) for each in verdicts] == [(2, 1, side, side) for side in (16, 8, 4)]
    assert len(verdicts) == JUDGED and len(features) == HALVINGS
    other, _ = critic.eval()(pictures, none + 1, none)
    assert not torch.allclose(verdicts[0], other[0])


def test_it_learns_to_tell_hard_pictures_from_soft_ones() -> None:
    critic = DrawingCritic(2, 1)
    optimizer = torch.optim.Adam(critic.parameters(), 2e-3, betas=(0.0, 0.99))

    def told(count: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        hard = (torch.rand(count, 3, 8, 8) > 0.5).float().repeat_interleave(4, 2).repeat_interleave(4, 3) * 2 - 1
        soft = torch.nn.functional.avg_pool2d(hard, 5, stride=1, padding=2)
        hands, variants = torch.randint(2, (count,)), torch.zeros(count, dtype=torch.int64)
        return critic(hard, hands, variants)[0], critic(soft, hands, variants)[0]

    first = float(critic_loss(*told(16)).detach())
    for _ in range(40):
        optimizer.zero_grad()
        critic_loss(*told(16)).backward()
        optimizer.step()
    with torch.no_grad():
        drawn, foretold = told(16)
    assert float(critic_loss(drawn, foretold)) < 0.5 * first
    assert all(float(real.mean()) > float(made.mean()) for real, made in zip(drawn, foretold, strict=True))
