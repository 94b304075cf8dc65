"""Stage ``vae``: the latent space that the image generator draws in (RECIPE.md point 2)."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.figures import gradient_loss, save_tensor_sheet
from pigeon_cli.training.loop import TrainingTask
from pigeon_cli.weights.checkpoint import save_part
from pigeon_cli.weights.spec_file import spec_text
from pigeon_cli.weights.store import ModelFolder

CROPS_PER_IMAGE = 2


class VaeTask(TrainingTask):
    """L1, edges at three scales and a small KL on random half-size crops.

    The network is convolutional without attention, so crops teach it the same filters as whole pictures at a
    quarter of the cost and from more pictures.
    """

    name = "vae"

    def __init__(self, folder: ModelFolder, batches: IconBatches, batch: int) -> None:
        self.folder, self.batches, self.batch = folder, batches, batch
        self.vae: AutoencoderKL = AutoencoderKL(**folder.spec.diffusion.vae).to(
            batches.device, memory_format=torch.channels_last
        )
        self.modules = {"vae": self.vae}

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        images = self.batches.draw(rng, self.batch // CROPS_PER_IMAGE)
        target = self._crops(images, rng).contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(target * 2 - 1).latent_dist
        drawn = (self.vae.decode(posterior.sample()).sample.float() + 1) / 2
        absolute = (drawn - target).abs().mean()
        edges = gradient_loss(drawn, target)
        divergence = posterior.kl().float().mean()
        return {"loss": absolute + edges + 1e-6 * divergence, "l1": absolute, "edges": edges, "kl": divergence}

    def _crops(self, images: Tensor, rng: random.Random) -> Tensor:
        side = images.shape[-1] // 2
        crops = []
        for image in images:
            for _ in range(CROPS_PER_IMAGE):
                top, left = rng.randrange(side + 1), rng.randrange(side + 1)
                crops.append(image[:, top : top + side, left : left + side])
        return torch.stack(crops)

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
        save_part(self.folder.part("vae"), self.vae.state_dict())
        images = self.batches.draw(random.Random(0), 128)
        latents = self.vae.encode(images * 2 - 1).latent_dist.mode().float()
        statistics = {
            "latents_mean": [round(value, 5) for value in latents.mean((0, 2, 3)).tolist()],
            "latents_std": [round(value, 5) for value in latents.std((0, 2, 3)).tolist()],
        }
        spec = self.folder.spec
        diffusion = dataclasses.replace(spec.diffusion, vae={**spec.diffusion.vae, **statistics})
        (self.folder.path / "config.json").write_text(
            spec_text(dataclasses.replace(spec, diffusion=diffusion)), encoding="utf-8"
        )
