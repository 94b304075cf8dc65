"""Guidance of the image generator: by all it is told at once, or by the taste more than by the rest; and how long."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pigeon_cli.models.diffusion import Beside, GridUNet, build_scheduler, build_unet, denoise
from tests.tiny_model import WIDTH, tiny_spec

SPEC = tiny_spec(320)
STEPS, GUIDANCE = 4, 2.0


class Listening(GridUNet):
    """Remembers how many rows it was asked for, and at which timesteps."""

    asked: list[tuple[int, int]]

    def forward(  # type: ignore[override]
        self, sample: Tensor, timestep: Tensor, context: Tensor, added: dict[str, Tensor], grid: Tensor | None = None
    ) -> Tensor:
        """As the UNet inside."""
        self.asked.append((int(timestep), len(sample)))
        return super().forward(sample, timestep, context, added, grid)


@pytest.fixture(scope="module")
def unet() -> Listening:
    torch.manual_seed(5)
    model = build_unet(SPEC.diffusion, WIDTH)
    assert isinstance(model, GridUNet)
    # What it is told of a taste begins as nothing; here it says something.
    for layer in (model.tells, model.recolours):
        torch.nn.init.normal_(layer.weight, std=0.5)
    model.__class__ = Listening
    return model.eval()  # type: ignore[return-value]


def told(taste: bool = True) -> Beside:
    stream = torch.Generator().manual_seed(2)
    reference = torch.randn(1, SPEC.diffusion.reference_channels, 8, 8, generator=stream)
    return Beside(reference, torch.randn(1, SPEC.diffusion.taste_width, generator=stream) if taste else None)


def drawn(unet: Listening, beside: Beside, guidance: float = GUIDANCE, taste: float = 1.0, since: int = 0) -> Tensor:
    unet.asked = []
    stream = torch.Generator().manual_seed(1)
    context, pooled, noise = (torch.randn(1, *shape, generator=stream) for shape in ((16, WIDTH), (WIDTH,), (4, 8, 8)))
    return denoise(
        unet, build_scheduler(SPEC.diffusion), context, pooled, noise,
        steps=STEPS, guidance=guidance, size=(16, 16), beside=beside, taste_guidance=taste, guided_from=since,
    )  # fmt: skip


def test_a_taste_that_is_guided_like_the_rest_takes_two_rows_and_more_takes_three(unet: Listening) -> None:
    drawn(unet, told())
    assert [rows for _, rows in unet.asked] == [2] * STEPS
    drawn(unet, told(), taste=2.0)
    assert [rows for _, rows in unet.asked] == [3] * STEPS


def test_three_rows_with_nothing_to_weigh_draw_what_two_draw(unet: Listening) -> None:
    plain = drawn(unet, told())
    nearly = drawn(unet, told(), taste=1.0 + 1e-7)
    assert torch.allclose(plain, nearly, atol=1e-4)
    assert not torch.allclose(plain, drawn(unet, told(), taste=2.0), atol=1e-2)


def test_a_history_may_be_longer_than_the_unet_was_made_for(unet: Listening) -> None:
    longer = torch.randn(1, SPEC.diffusion.history_pictures + 2, 9, 8, 8)
    drawn(unet, replace(told(), history=longer), taste=2.0)
    assert [rows for _, rows in unet.asked] == [3] * STEPS


def test_without_a_taste_there_is_nothing_to_guide_by(unet: Listening) -> None:
    assert torch.equal(drawn(unet, told(taste=False), taste=2.0), drawn(unet, told(taste=False)))
    assert [rows for _, rows in unet.asked] == [2] * STEPS


def test_below_its_timestep_nothing_is_guided(unet: Listening) -> None:
    drawn(unet, told(), taste=2.0, since=500)
    assert [rows for _, rows in unet.asked] == [3 if timestep >= 500 else 1 for timestep, _ in unet.asked]
    assert {rows for _, rows in unet.asked} == {1, 3}


def test_guidance_of_one_is_the_condition_alone(unet: Listening) -> None:
    alone = drawn(unet, told(), guidance=1.0)
    assert [rows for _, rows in unet.asked] == [1] * STEPS
    assert torch.equal(alone, drawn(unet, told(), since=10_000))


def test_one_step_is_the_weighed_sum(unet: Listening) -> None:
    """By hand: what is told less is weighed by guidance, the taste by guidance and its own factor."""
    predicted: list[Tensor] = []
    handle = unet.register_forward_hook(lambda module, arguments, output: predicted.append(output))
    whole = drawn(unet, told(), taste=3.0)
    handle.remove()
    free, less, more = predicted[0].chunk(3)
    said = free + GUIDANCE * (less - free) + GUIDANCE * 3.0 * (more - less)
    assert not torch.allclose(less, more, atol=1e-4)
    scheduler = build_scheduler(SPEC.diffusion)
    scheduler.set_timesteps(STEPS)
    stream = torch.Generator().manual_seed(1)
    noise = [torch.randn(1, *shape, generator=stream) for shape in ((16, WIDTH), (WIDTH,), (4, 8, 8))][2]
    first = scheduler.step(said, scheduler.timesteps[0], noise, return_dict=False)[0]
    again: list[Tensor] = []
    handle = unet.register_forward_pre_hook(lambda module, arguments: again.append(arguments[0]))
    drawn(unet, told(), taste=3.0)
    handle.remove()
    assert torch.allclose(again[1][:1], first, atol=1e-5)
    assert whole.isfinite().all()
