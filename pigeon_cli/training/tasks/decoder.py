"""Stage ``decoder``: the UNet that draws latents from codes, and the embedding decoder with it (RECIPE.md point 5)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.diffusion import (
    build_scheduler,
    build_unet,
    build_vae,
    decode_latents,
    denoise,
    initial_latents,
    predict,
    scale_latents,
    size_ids,
)
from pigeon_cli.models.embedding_decoder import DecodedCondition, EmbeddingDecoder
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.code_cache import encode_pictures
from pigeon_cli.training.figures import psnr, save_tensor_sheet
from pigeon_cli.training.loop import LoopSettings, MovingAverage, TrainingTask, slowed
from pigeon_cli.training.restyle import Restyled, Restyler, SourceShares
from pigeon_cli.weights.checkpoint import load_part, save_part
from pigeon_cli.weights.store import ModelFolder

EMPTY_SHARE = 0.1
"""Share of pictures drawn without condition, for guidance."""
REPLACED_SHARE = 0.05
"""Share of codes replaced at random, because the language model's codes are not perfect either."""
MINIMUM_SNR = 5.0
DECODER_SHARE = 0.3
"""Share of the learning rate that the embedding decoder gets. It has learned to draw pictures itself, and so where
what is to be drawn is uncertain the middle of what it may be; what the UNet needs to know it has to learn with it."""
SHARES = SourceShares(own=0.1, plain=0.3, own_style=0.15, alike=0.6)
"""Where what the codes of a picture's places say is from: the picture itself, its plain drawing, which is what the
language model says, or another set's drawing with the same lines, as a reference is. About half of the pictures have
one; of the others the plain drawing. Drawings with other lines are the translator's to know."""
PLAIN_DRAWINGS, REFERENCES = SourceShares(0.0, 1.0, 0.0), SourceShares(0.0, 0.0, 0.0, alike=1.0)
"""What evaluation draws valid pictures from, in the style of others."""
POOL_STEPS, POOL_PICTURES = 500, 4096
"""So many steps draw from one pool of so many encoded pictures: reading a picture costs more than a step on it."""


@dataclass(frozen=True)
class _Pool:
    number: int
    latents: Tensor
    """Scaled, [n, c, h, w]."""
    codes: Tensor
    """Packed, int64 [n, tokens], -1 as padding."""


class DecoderTask(TrainingTask):
    """v-prediction on scaled latents with zero terminal SNR and min-SNR weights."""

    name = "decoder"

    def __init__(
        self, folder: ModelFolder, batches: IconBatches, tokenizer: VisualTokenizer, batch: int, steps: int
    ) -> None:
        self.folder, self.batches, self.tokenizer, self.batch, self.steps = folder, batches, tokenizer, batch, steps
        self.pool: _Pool | None = None
        spec, device = folder.spec, batches.device
        self.spec = spec
        # diffusers does not say what its classes can do.
        self.unet = cast(Any, build_unet(spec.diffusion, spec.decoder.context_width)).to(
            device, memory_format=torch.channels_last
        )
        self.average = MovingAverage(self.unet).to(device)
        self.scheduler = cast(Any, build_scheduler(spec.diffusion))
        self.embedding_decoder = EmbeddingDecoder(spec.decoder).to(device)
        load_part(self.embedding_decoder, folder.part("decoder"))
        self.decoder_average = MovingAverage(self.embedding_decoder).to(device)
        self.vae = cast(Any, build_vae(spec.diffusion)).to(device, memory_format=torch.channels_last)
        load_part(self.vae, folder.part("vae"))
        self.vae.requires_grad_(False).eval()
        self.restyler, self.valid = Restyler(batches), Restyler(batches, batches.valid)
        self.modules = {
            "unet": self.unet,
            "average": self.average,
            "decoder": self.embedding_decoder,
            "decoder_average": self.decoder_average,
        }

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        if self.pool is None or self.pool.number != step // POOL_STEPS:
            self.pool = self._fill_pool(step // POOL_STEPS)
        rows = torch.tensor(rng.choices(range(len(self.pool.codes)), k=self.batch))
        latents, codes = self.pool.latents[rows], self.pool.codes[rows]
        condition = self._condition(codes, REPLACED_SHARE)
        present = (torch.rand(self.batch, device=codes.device) >= EMPTY_SHARE).float()
        noise = torch.randn_like(latents)
        times = torch.randint(0, self.scheduler.config.num_train_timesteps, (self.batch,), device=codes.device)
        target = self.scheduler.get_velocity(latents, noise, times)
        drawn = self._predict(self.scheduler.add_noise(latents, noise, times), times, condition, present)
        errors = (drawn.float() - target).square().mean((1, 2, 3))
        signal = self.scheduler.alphas_cumprod.to(codes.device)[times]
        ratio = signal / (1 - signal).clamp_min(1e-8)
        # Min-SNR weights of v-prediction: min(snr, 5) / (snr + 1), lifted so that pure noise keeps a share.
        weights = (ratio.clamp(max=MINIMUM_SNR) + 0.1) / (ratio + 1)
        return {"loss": (errors * weights).mean(), "mse": errors.mean()}

    @torch.no_grad()
    def _fill_pool(self, number: int) -> _Pool:
        """Pictures of this pool alone: a resumed run must find the same ones."""
        rng = random.Random(stream_seed(0, "decoder pool", number))
        count = min(POOL_PICTURES, self.batch * self.steps)
        latents, codes = [], []
        for start in range(0, count, 64):
            batch = self.restyler.draw(rng, min(64, count - start), SHARES)
            mode = self.vae.encode(batch.wanted * 2 - 1).latent_dist.mode().float()
            latents.append(scale_latents(self.vae, mode))
            codes.append(self._restyled_codes(batch))
        return _Pool(number, torch.cat(latents), torch.cat(codes))

    def _restyled_codes(self, batch: Restyled) -> Tensor:
        """Style codes of the pictures that ``batch`` names, codes of the places of its sources."""
        codes, style = self._codes(batch.wanted), self.spec.tokenizer.style_tokens
        places = codes.clone()
        if not bool(batch.own.all()):
            places[~batch.own] = self._codes(batch.sources[~batch.own])
        return torch.cat([codes[batch.style_rows, :style], places[:, style:]], dim=1)

    def _codes(self, images: Tensor) -> Tensor:
        return torch.from_numpy(encode_pictures(self.tokenizer, images).astype("int64")).to(images.device)

    def _condition(self, codes: Tensor, replaced: float) -> DecodedCondition:
        mask, config = codes >= 0, self.spec.tokenizer
        other = torch.randint_like(codes, config.patch_codes)
        swapped = (torch.rand(codes.shape, device=codes.device) < replaced) & mask
        swapped[:, : config.style_tokens] = False
        codes = torch.where(swapped, other, codes)
        condition: DecodedCondition = self.embedding_decoder(self.tokenizer.quantizer.lookup(codes), mask)
        return condition

    def _predict(self, noisy: Tensor, times: Tensor, condition: DecodedCondition, present: Tensor) -> Tensor:
        side = self.spec.diffusion.image_size
        added = {
            "text_embeds": condition.pooled * present[:, None],
            "time_ids": size_ids(side, side, len(noisy)).to(noisy.device),
        }
        grid = self.unet.project(condition.context) * present[:, None, None, None]
        context = condition.context * present[:, None, None]
        return predict(self.unet, noisy, times, context, added, grid)

    def after_step(self, step: int) -> None:
        self.average.update(self.unet, step)
        self.decoder_average.update(self.embedding_decoder, step)

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        batch, asked = (self.valid.draw(random.Random(1), 24, shares) for shares in (PLAIN_DRAWINGS, REFERENCES))
        images = batch.wanted
        pairs = ((self.unet, self.average), (self.embedding_decoder, self.decoder_average))
        trained = [{name: tensor.clone() for name, tensor in module.state_dict().items()} for module, _ in pairs]
        for module, average in pairs:
            module.load_state_dict(average.state_of(module))
        coded = (self._codes(images), self._restyled_codes(batch), self._restyled_codes(asked))
        drawn, restyled, redrawn = (self.draw(self._condition(codes, 0.0)) for codes in coded)
        for (module, _), state in zip(pairs, trained, strict=True):
            module.load_state_dict(state)
        save_tensor_sheet(
            folder / f"sheet-{step + 1:06d}.png",
            [part[:16] for part in (images, drawn, batch.sources, restyled, asked.sources, redrawn)],
            ["image", "its codes", "plain drawing", "in its style", "another's", "in its style"],
        )
        parts = {"psnr": drawn, "psnr_restyled": restyled, "psnr_redrawn": redrawn}
        return {name: psnr(part, images) for name, part in parts.items()}

    def draw(self, condition: DecodedCondition) -> Tensor:
        """Pictures [B,3,H,W] in 0..1 of a condition at the model's own steps and guidance."""
        settings = self.spec.diffusion
        count, side = len(condition.context), settings.image_size
        generators = [torch.Generator().manual_seed(stream_seed(0, "sheet", number)) for number in range(count)]
        shape = (settings.unet["out_channels"], settings.unet["sample_size"], settings.unet["sample_size"])
        latents = denoise(
            self.unet,
            self.scheduler,
            condition.context,
            condition.pooled,
            initial_latents(shape, generators).to(condition.context.device),
            steps=settings.steps,
            guidance=settings.guidance,
            size=(side, side),
        )
        return decode_latents(self.vae, latents).permute(0, 3, 1, 2).float() / 255

    def export(self) -> None:
        save_part(self.folder.part("unet"), self.average.state_of(self.unet))
        save_part(self.folder.part("decoder"), self.decoder_average.state_of(self.embedding_decoder), torch.float16)

    def parameter_groups(self, settings: LoopSettings) -> list[dict[str, Any]]:
        """The embedding decoder, which has been trained, moves slowly."""
        trained = set(self.embedding_decoder.parameters())
        return slowed(super().parameter_groups(settings), trained, settings.learning_rate * DECODER_SHARE)
