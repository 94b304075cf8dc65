"""Stage ``vae``: the latent space that the image generator draws in (RECIPE.md point 2)."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pigeon_cli.models.diffusion import build_vae
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.figures import gradient_loss, save_tensor_sheet
from pigeon_cli.training.loop import TrainingTask
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.weights.spec_file import read_spec, spec_text
from pigeon_cli.weights.store import ModelFolder


class VaeTask(TrainingTask):
    """L1, edges at three scales and a small KL on whole pictures.

    Crops are cheaper but teach the group norms other statistics than whole pictures have, and colours come out grey.
    """

    name = "vae"

    def __init__(self, folder: ModelFolder, batches: IconBatches, batch: int) -> None:
        self.folder, self.batches, self.batch = folder, batches, batch
        # diffusers does not say what its classes can do.
        self.vae = cast(Any, build_vae(folder.spec.diffusion))
        self.vae.to(batches.device, memory_format=torch.channels_last)
        self.modules = {"vae": self.vae}

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        target = self.batches.draw(rng, self.batch).contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(target * 2 - 1).latent_dist
        drawn = (self.vae.decode(posterior.sample()).sample.float() + 1) / 2
        absolute = (drawn - target).abs().mean()
        edges = gradient_loss(drawn, target)
        divergence = posterior.kl().float().mean()
        return {"loss": absolute + edges + 1e-6 * divergence, "l1": absolute, "edges": edges, "kl": divergence}

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        images = self.batches.fixed_valid(48)
        latents = self.vae.encode(images * 2 - 1).latent_dist.mode()
        drawn = ((self.vae.decode(latents).sample.float() + 1) / 2).clamp(0, 1)
        save_tensor_sheet(folder / f"sheet-{step + 1:06d}.png", [images[:12], drawn[:12]], ["image", "through the VAE"])
        return {"psnr": float(-10 * torch.log10((drawn - images).square().mean()))}

    @torch.no_grad()
    def export(self) -> None:
        """Write the weights, and into config.json the latents' mean and deviation per channel."""
        self.vae.eval()
        save_shipped(self.folder, "vae", self.vae.state_dict())
        images = self.batches.draw(random.Random(0), 128)
        latents = self.vae.encode(images * 2 - 1).latent_dist.mode().float()
        statistics = {
            "latents_mean": [round(value, 5) for value in latents.mean((0, 2, 3)).tolist()],
            "latents_std": [round(value, 5) for value in latents.std((0, 2, 3)).tolist()],
        }
        # Read again: the configuration may have been edited since the run began.
        spec = read_spec(self.folder.path / "config.json")
        diffusion = dataclasses.replace(spec.diffusion, vae={**spec.diffusion.vae, **statistics})
        (self.folder.path / "config.json").write_text(
            spec_text(dataclasses.replace(spec, diffusion=diffusion)), encoding="utf-8"
        )
