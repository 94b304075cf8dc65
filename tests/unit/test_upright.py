"""How a history stands on its paper is told by drawings that are known."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from pigeon_cli.models.look_kernels import margin, tilt
from pigeon_cli.models.memory import Memory
from pigeon_cli.models.outlines import outlines
from pigeon_cli.pipeline.upright import POSES, put_back, upright_lines
from tests.small_memory import knowing


def drawings(count: int) -> Tensor:
    """Opaque pictures [count, 4, 128, 128] of bars on white paper, in its middle."""
    torch.manual_seed(1)
    pictures = torch.ones(count, 4, 128, 128)
    for picture in pictures:
        for _ in range(5):
            left, top, wide, high = (int(number) for number in torch.randint(8, 28, (4,)))
            picture[:3, 20 + 2 * top : 20 + 2 * top + high, 20 + 2 * left : 20 + 2 * left + wide] = (
                torch.rand(3, 1, 1) / 2
            )
    return pictures


def on_paper(pictures: Tensor) -> Tensor:
    return pictures[:, :3] + 1 - pictures[:, 3:]


@pytest.mark.parametrize("degrees", [-36, -20, 12, 28])
def test_a_history_that_is_turned_is_put_back(degrees: int) -> None:
    plain = drawings(20)
    memory = knowing(plain[:, :3])
    turned = on_paper(tilt(plain[:5], degrees))
    lines, found = upright_lines(memory, turned)
    assert found == degrees
    assert memory.alike(lines)[0].tolist() == list(range(5))
    inner = put_back(turned, degrees, 0.94)[:, :, 24:104, 24:104]
    assert float((inner - plain[:5, :3, 24:104, 24:104]).abs().mean()) < 0.03


@pytest.mark.parametrize("scale", [0.5, 0.62, 0.78])
def test_small_drawings_are_known_and_not_turned(scale: float) -> None:
    plain = drawings(20)
    memory = knowing(plain[:, :3])
    lines, found = upright_lines(memory, on_paper(margin(plain[:5], scale)))
    assert found == 0
    assert memory.alike(lines)[0].tolist() == list(range(5))


def test_what_stands_upright_stays_as_it_is() -> None:
    plain = drawings(20)
    pictures = plain[:5, :3]
    lines, found = upright_lines(knowing(plain[:, :3]), pictures)
    assert found == 0
    assert torch.equal(lines, outlines(pictures))
    # Nothing of this is known, and so nothing of it gains.
    others = torch.ones(3, 3, 128, 128)
    assert upright_lines(knowing(plain[:, :3]), others)[1] == 0


@pytest.mark.parametrize(("upright", "best", "told"), [(0.5, 0.6, False), (0.5, 0.7, True), (0.65, 0.7, False)])
def test_what_the_memory_does_not_know_is_not_turned(upright: float, best: float, told: bool) -> None:
    agreements = [upright] * len(POSES)
    agreements[3] = best

    class Agreeing:
        def alike(self, lines: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros(1, dtype=torch.int64), torch.tensor([agreements.pop(0)])

    _, degrees = upright_lines(cast(Memory, Agreeing()), torch.rand(1, 3, 128, 128))
    assert degrees == (POSES[3][0] if told else 0)
