"""Train drawings as the memory gives them back: what the UNet draws from wherever something is recalled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from pigeon_cli.models.diffusion import decode_latents
from pigeon_cli.models.memory import Memory
from pigeon_cli.models.outlines import outlines
from pigeon_cli.pipeline.recall import plain_drawings
from pigeon_cli.training.data.dataset import IconRecord
from pigeon_cli.training.data.sets import HANDS
from pigeon_cli.training.frozen_reader import frozen
from pigeon_cli.weights.store import ModelFolder

AT_ONCE: Final = 64


class StoredDrawings:
    """What a model folder's memory holds of the train drawings that it was made of."""

    def __init__(self, folder: ModelFolder, things: Sequence[str], vae: AutoencoderKL, device: torch.device) -> None:
        """``things``: the meanings that the memory was made of, in its order; ``vae``: the folder's, on ``device``."""
        config = folder.spec.memory
        if config is None:
            raise ValueError(f"{folder.path} has no memory")
        self.vae, self.device = vae, device
        self.memory = frozen(Memory(config), folder, "memory", device)
        numbers = zip(self.memory.things.tolist(), self.memory.hands.tolist(), strict=True)
        self.rows = {(things[thing], HANDS[hand]): row for row, (thing, hand) in enumerate(numbers)}
        self.pictures: dict[int, Tensor] = {}

    @torch.no_grad()
    def rgba(self, records: Sequence[IconRecord]) -> Tensor:
        """Float [B, 4, S, S] in 0..1, opaque: train records as they are remembered; each is decoded once."""
        rows = [self.rows[record.meaning, record.set] for record in records]
        missing = sorted(set(rows) - self.pictures.keys())
        for start in range(0, len(missing), AT_ONCE):
            some = missing[start : start + AT_ONCE]
            with torch.autocast(self.device.type, enabled=False):
                pixels = decode_latents(self.vae, self.memory.latents(some))
            self.pictures.update(zip(some, pixels.to(self.device), strict=True))
        stacked = torch.stack([self.pictures[row] for row in rows]).permute(0, 3, 1, 2).float() / 255
        return functional.pad(stacked, (0, 0, 0, 0, 0, 1), value=1.0)

    @torch.no_grad()
    def known(self, images: Tensor) -> Tensor:
        """Scaled latents [B, c, h, w] of the drawings that RGB pictures [B, 3, S, S] in 0..1 are taken for as liked
        pictures, zero where they are taken for none."""
        return plain_drawings(self.memory, outlines(images))
