"""Batches of transformed icons from train cells, and the fixed valid pictures of the sheets."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pigeon_cli.history.preprocess import CHANNEL_DEVIATION, CHANNEL_MEAN
from pigeon_cli.training.data.dataset import IconDataset, IconRecord
from pigeon_cli.training.data.looks import PLAIN, apply_looks, draw_look


def normalise(images: Tensor) -> Tensor:
    """RGB [B,3,H,W] in 0..1 to the tokenizer's pixels, by the mean and deviation of the one preprocessing."""
    mean = torch.tensor(CHANNEL_MEAN, device=images.device)[:, None, None]
    deviation = torch.tensor(CHANNEL_DEVIATION, device=images.device)[:, None, None]
    return (images - mean) / deviation


@dataclass
class IconBatches:
    """Draws pictures of one dataset onto one device; only *train* cells, only looks that training may see."""

    dataset: IconDataset
    device: torch.device
    train: list[IconRecord] = field(init=False)
    valid: list[IconRecord] = field(init=False)

    def __post_init__(self) -> None:
        self.train = list(self.dataset.by_split["train"])
        self.valid = list(self.dataset.by_split["valid"])

    def rgba(self, records: list[IconRecord]) -> Tensor:
        """Float [B,4,H,W] in 0..1, straight alpha."""
        stacked = np.stack([self.dataset.images[record.id] for record in records])
        return torch.from_numpy(stacked).to(self.device).permute(0, 3, 1, 2).float() / 255

    def pictures(self, records: list[IconRecord], rng: random.Random, plain_share: float = 0.0) -> Tensor:
        """Float [B,3,H,W] in 0..1, each under a look of its own; a share of them stays plain."""
        looks = [PLAIN if rng.random() < plain_share else draw_look(rng) for _ in records]
        return apply_looks(looks, self.rgba(records))

    def draw(self, rng: random.Random, count: int) -> Tensor:
        """Float [count,3,H,W] in 0..1 of random train cells."""
        return self.pictures(rng.choices(self.train, k=count), rng)

    def fixed_valid(self, count: int) -> Tensor:
        """The same pictures of at most ``count`` valid cells at every call."""
        rng = random.Random(1)
        return self.pictures(rng.sample(self.valid, min(count, len(self.valid))), rng)
