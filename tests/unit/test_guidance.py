"""Guidance of the image generator: by all it is told at once, or by the taste more than by the rest; and how long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pigeon_cli.models.diffusion import Beside, GridUNet, build_scheduler, build_unet, denoise
from tests.tiny_model import WIDTH, tiny_spec

SPEC = tiny_spec(320)
STEPS, GUIDANCE = 4, 2.0


class Calls:
    """A UNet, and what it was asked in the last drawing: timesteps, noisy latents of all rows, and its predictions."""

    def __init__(self, unet: GridUNet) -> None:
        self.unet = unet
        self.asked: list[tuple[int, int]] = []
        self.samples: list[Tensor] = []
        self.predicted: list[Tensor] = []
        unet.register_forward_hook(self._listen)

    def _listen(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        sample, timestep = arguments[:2]
        self.asked.append((int(timestep), len(sample)))
        self.samples.append(sample)
        self.predicted.append(output)


@pytest.fixture
def unet() -> Calls:
    torch.manual_seed(5)
    model = build_unet(SPEC.diffusion, WIDTH)
    assert isinstance(model, GridUNet)
    # What it is told of a taste begins as nothing; here it says something.
    for layer in (model.tells, model.recolours):
        torch.nn.init.normal_(layer.weight, std=0.5)
    return Calls(model.eval())


def told(taste: bool = True) -> Beside:
    stream = torch.Generator().manual_seed(2)
    reference = torch.randn(1, SPEC.diffusion.reference_channels, 8, 8, generator=stream)
    return Beside(reference, torch.randn(1, SPEC.diffusion.taste_width, generator=stream) if taste else None)


def drawn(unet: Calls, beside: Beside, guidance: float = GUIDANCE, taste: float = 1.0, since: int = 0) -> Tensor:
    unet.asked, unet.samples, unet.predicted = [], [], []
    stream = torch.Generator().manual_seed(1)
    context, pooled, noise = (torch.randn(1, *shape, generator=stream) for shape in ((16, WIDTH), (WIDTH,), (4, 8, 8)))
    return denoise(
        unet.unet, build_scheduler(SPEC.diffusion), context, pooled, noise,
        steps=STEPS, guidance=guidance, size=(16, 16), beside=beside, taste_guidance=taste, guided_from=since,
    )  # fmt: skip


def test_a_taste_that_is_guided_like_the_rest_takes_two_rows_and_more_takes_three(unet: Calls) -> None:
    drawn(unet, told())
    assert [rows for _, rows in unet.asked] == [2] * STEPS
    drawn(unet, told(), taste=2.0)
    assert [rows for _, rows in unet.asked] == [3] * STEPS


def test_three_rows_with_nothing_to_weigh_draw_what_two_draw(unet: Calls) -> None:
    plain = drawn(unet, told())
    nearly = drawn(unet, told(), taste=1.0 + 1e-7)
    assert torch.allclose(plain, nearly, atol=1e-4)
    assert not torch.allclose(plain, drawn(unet, told(), taste=2.0), atol=1e-2)


def test_a_history_may_be_longer_than_the_unet_was_made_for(unet: Calls) -> None:
    longer = torch.randn(1, SPEC.diffusion.history_pictures + 2, 9, 8, 8)
    drawn(unet, replace(told(), history=longer), taste=2.0)
    assert [rows for _, rows in unet.asked] == [3] * STEPS


def test_without_a_taste_there_is_nothing_to_guide_by(unet: Calls) -> None:
    assert torch.equal(drawn(unet, told(taste=False), taste=2.0), drawn(unet, told(taste=False)))
    assert [rows for _, rows in unet.asked] == [2] * STEPS


def test_below_its_timestep_nothing_is_guided(unet: Calls) -> None:
    drawn(unet, told(), taste=2.0, since=500)
    assert [rows for _, rows in unet.asked] == [3 if timestep >= 500 else 1 for timestep, _ in unet.asked]
    assert {rows for _, rows in unet.asked} == {1, 3}


def test_guidance_of_one_is_the_condition_alone(unet: Calls) -> None:
    alone = drawn(unet, told(), guidance=1.0)
    assert [rows for _, rows in unet.asked] == [1] * STEPS
    assert torch.equal(alone, drawn(unet, told(), since=10_000))


def test_one_step_is_the_weighed_sum(unet: Calls) -> None:
    """By hand: what is told less is weighed by guidance, the taste by guidance and its own factor."""
    whole = drawn(unet, told(), taste=3.0)
    free, less, more = unet.predicted[0].chunk(3)
    said = free + GUIDANCE * (less - free) + GUIDANCE * 3.0 * (more - less)
    assert not torch.allclose(less, more, atol=1e-4)
    scheduler = build_scheduler(SPEC.diffusion)
    scheduler.set_timesteps(STEPS)
    first = scheduler.step(said, scheduler.timesteps[0], unet.samples[0][:1], return_dict=False)[0]
    assert torch.allclose(unet.samples[1][:1], first, atol=1e-5)
    assert whole.isfinite().all()
