"""Stage ``vae``: the latent space that the image generator draws in (RECIPE.md point 2)."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.models.diffusion import build_vae
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.looks import apply_looks, draw_look, geometry_of
from pigeon_cli.training.figures import gradient_loss, save_tensor_sheet
from pigeon_cli.training.loop import LoopSettings, MovingAverage, TrainingTask
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.weights.spec_file import change_spec
from pigeon_cli.weights.store import ModelFolder

REFERENCE_SHARE = 0.3
"""Of pictures as references are, in their plain colours: the UNet is to copy their lines."""
MOST_NOISE = 0.05
"""Of latents, in their deviations: what the UNet draws is never quite what the encoder makes."""
SQUARE_WEIGHT = 4.0
MATRIX_DECAY, AVERAGE_DECAY = 1e-4, 0.998


class VaeTask(TrainingTask):
    """L1, edges at three scales, squares and a small KL on whole pictures, drawn from latents with a little noise.

    Crops are cheaper but teach the group norms other statistics than whole pictures have, and colours come out grey.
    """

    name = "vae"

    def __init__(self, folder: ModelFolder, batches: IconBatches, batch: int) -> None:
        self.folder, self.batches, self.batch = folder, batches, batch
        # diffusers does not say what its classes can do.
        self.vae = cast(Any, build_vae(folder.spec.diffusion))
        self.vae.to(batches.device, memory_format=torch.channels_last)
        self.average = MovingAverage(self.vae, AVERAGE_DECAY).to(batches.device)
        self.modules = {"vae": self.vae, "average": self.average}

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        target = self._pictures(rng).contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(target * 2 - 1).latent_dist
        drawn = (self.vae.decode(_noisy(posterior.sample().float())).sample.float() + 1) / 2
        absolute, square = (drawn - target).abs().mean(), (drawn - target).square().mean()
        edges = gradient_loss(drawn, target)
        divergence = posterior.kl().float().mean()
        loss = absolute + edges + SQUARE_WEIGHT * square + 1e-6 * divergence
        return {"loss": loss, "l1": absolute, "edges": edges, "square": square, "kl": divergence}

    def _pictures(self, rng: random.Random) -> Tensor:
        """Float [batch, 3, H, W] in 0..1 of train cells; references wear nothing but what moves them."""
        records = rng.choices(self.batches.train, k=self.batch)
        looks = [draw_look(rng) for _ in records]
        worn = [geometry_of(look) if rng.random() < REFERENCE_SHARE else look for look in looks]
        return apply_looks(worn, self.batches.rgba(records))

    def after_step(self, step: int) -> None:
        self.average.update(self.vae, step)

    def parameter_groups(self, settings: LoopSettings) -> list[dict[str, Any]]:
        return super().parameter_groups(dataclasses.replace(settings, weight_decay=MATRIX_DECAY))

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        images = self.batches.fixed_valid(48)
        with self.average.in_place_of(self.vae):
            latents = self.vae.encode(images * 2 - 1).latent_dist.mode()
            drawn = ((self.vae.decode(latents).sample.float() + 1) / 2).clamp(0, 1)
        save_tensor_sheet(folder / f"sheet-{step + 1:06d}.png", [images[:12], drawn[:12]], ["image", "through the VAE"])
        return {"psnr": float(-10 * torch.log10((drawn - images).square().mean()))}

    @torch.no_grad()
    def export(self) -> None:
        """Write the weights, and into config.json the latents' mean and deviation per channel."""
        self.vae.eval()
        save_shipped(self.folder, "vae", self.average.state_of(self.vae))
        images = self.batches.draw(random.Random(0), 128)
        with self.average.in_place_of(self.vae):
            latents = self.vae.encode(images * 2 - 1).latent_dist.mode().float()
        statistics = {
            "latents_mean": [round(value, 5) for value in latents.mean((0, 2, 3)).tolist()],
            "latents_std": [round(value, 5) for value in latents.std((0, 2, 3)).tolist()],
        }

        def with_statistics(spec: ModelSpec) -> ModelSpec:
            diffusion = dataclasses.replace(spec.diffusion, vae={**spec.diffusion.vae, **statistics})
            return dataclasses.replace(spec, diffusion=diffusion)

        change_spec(self.folder.path / "config.json", with_statistics)


def _noisy(latents: Tensor) -> Tensor:
    """Latents [B, c, h, w] with up to ``MOST_NOISE`` on each picture."""
    deviation = latents.detach().std((0, 2, 3), keepdim=True)
    part = torch.rand(len(latents), 1, 1, 1, device=latents.device)
    return latents + torch.randn_like(latents) * MOST_NOISE * deviation * part
