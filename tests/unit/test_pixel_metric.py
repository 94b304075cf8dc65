"""What a change of latents does to pixels, on a decoder whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from diffusers.configuration_utils import FrozenDict
from torch import Tensor

from pigeon_cli.training.pixel_metric import FLOOR, pixel_metric


class Weighing:
    """Pixels are the latents, the second channel three times as strong and the third left out."""

    config = FrozenDict(scaling_factor=1.0)
    device = torch.device("cpu")

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latents * torch.tensor([1.0, 3.0, 0.0])[:, None, None])


def test_lengths_are_those_of_what_changes_in_the_picture() -> None:
    metric = pixel_metric(Weighing(), torch.randn(5, 3, 4, 4), 1)
    # 1, 9 and 0 brought to a sum of three, and the floor.
    expected = torch.tensor([0.3, 2.7, 0.0]) + FLOOR
    assert torch.allclose(metric @ metric.T, torch.diag(expected), atol=1e-4)


def test_the_same_drawings_give_the_same_metric() -> None:
    latents = torch.randn(5, 3, 4, 4)
    assert torch.equal(pixel_metric(Weighing(), latents, 2), pixel_metric(Weighing(), latents, 2))
