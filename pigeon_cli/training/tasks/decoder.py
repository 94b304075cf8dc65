"""Stage ``decoder``: the UNet that draws latents from codes, and from what is seen of a reference (RECIPE, point 5)."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.diffusion import (
    NOTHING,
    Beside,
    build_scheduler,
    build_unet,
    build_vae,
    decode_latents,
    denoise,
    encode_latents,
    initial_latents,
    predict,
    size_ids,
    visible,
)
from pigeon_cli.models.embedding_decoder import DecodedCondition, EmbeddingDecoder
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.code_cache import encode_pictures
from pigeon_cli.training.figures import psnr, save_tensor_sheet
from pigeon_cli.training.frozen_reader import frozen_taste_reader, tastes_of
from pigeon_cli.training.loop import MovingAverage, TrainingTask
from pigeon_cli.training.restyle import Restyled, Restyler, SourceShares
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.weights.checkpoint import load_part
from pigeon_cli.weights.store import ModelFolder

EMPTY_SHARE = 0.1
"""Share of pictures drawn without condition, for guidance."""
REPLACED_SHARE = 0.05
"""Share of codes replaced at random, because the language model's codes are not perfect either."""
MINIMUM_SNR = 5.0
SHARES = SourceShares(own=0.1, plain=0.1, own_style=0.15, alike=0.15, kin=0.55, plain_looks=0.35)
"""Where what the codes of a picture's places say is from: the picture itself, its plain drawing, which is what the
language model says, another set's drawing with the same lines, as a reference is, another finish by the same hand,
as the memory has it, or, seldom, any other family's. Where there is none, the plain drawing."""
REMEMBERED_STEPS, REMEMBERED_GUIDANCE = 5, 1.5
"""Of a drawing that is drawn from codes to be seen as a reference: fewer steps than at generation, to save time."""
UNSEEN_SHARE, WHOLE_SHARE = 0.25, 0.4
"""Shares of pictures whose reference is not seen but in its codes, as where words brought it back, and is seen whole;
of the others a random part is hidden."""
RIGHT_SHARE = 0.2
"""Share of pictures whose codes are right although what is seen is another's: what the language model says counts."""
PLAIN_DRAWINGS, REFERENCES = SourceShares(0.0, 1.0, 0.0), SourceShares(0.0, 0.0, 0.0, kin=1.0)
"""What evaluation draws valid pictures from, in the style of others."""
UNTOLD_SHARE = 0.1
"""Share of pictures that are drawn without a taste, as where there is no history."""
TOGETHER = 6
"""Pictures under one look: a history of five, and the one that is wanted."""
POOL_STEPS, POOL_PICTURES, POOL_BATCH = 1000, 4096, 60
"""So many steps draw from one pool of so many encoded pictures: reading a picture costs more than a step on it."""


@dataclass(frozen=True)
class _Pool:
    number: int
    latents: Tensor
    """Scaled, [n, c, h, w]."""
    shown: Tensor
    """Scaled latents of the references, [n, c, h, w]."""
    asked: Tensor
    """Packed codes int64 [n, tokens], -1 as padding: the style that is wanted, the places of the references."""
    right: Tensor
    """The same with the places of the right answers."""
    taste: Tensor
    """[n, taste width], read off other pictures under the same look."""


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
        # What it draws for a pool to see must not depend on when a run was interrupted.
        self.painter = deepcopy(self.unet).requires_grad_(False)
        self.scheduler = cast(Any, build_scheduler(spec.diffusion))
        self.embedding_decoder = EmbeddingDecoder(spec.decoder).to(device)
        load_part(self.embedding_decoder, folder.part("decoder"))
        self.embedding_decoder.requires_grad_(False).eval()
        self.vae = cast(Any, build_vae(spec.diffusion)).to(device, memory_format=torch.channels_last)
        load_part(self.vae, folder.part("vae"))
        self.vae.requires_grad_(False).eval()
        self.taste = frozen_taste_reader(folder, device)
        self.restyler = Restyler(batches, remembered=self._remembered)
        self.valid = Restyler(batches, batches.valid)
        self.modules = {"unet": self.unet, "average": self.average, "painter": self.painter}

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        if step % POOL_STEPS == 0:
            self.painter.load_state_dict(self.unet.state_dict())
        if self.pool is None or self.pool.number != step // POOL_STEPS:
            self.pool = self._fill_pool(step // POOL_STEPS)
        rows = torch.tensor(rng.choices(range(len(self.pool.asked)), k=self.batch))
        latents, keep = self.pool.latents[rows], self._keep()
        codes, shown = self._seen(self.pool.asked[rows], self.pool.right[rows], self.pool.shown[rows], keep)
        told = torch.rand(self.batch, 1, device=shown.device) >= UNTOLD_SHARE
        beside = Beside(shown, None if self.taste is None else self.pool.taste[rows] * told)
        with torch.no_grad():
            condition = self._condition(codes, REPLACED_SHARE)
        present = (torch.rand(self.batch, device=codes.device) >= EMPTY_SHARE).float()
        noise = torch.randn_like(latents)
        times = torch.randint(0, self.scheduler.config.num_train_timesteps, (self.batch,), device=codes.device)
        target = self.scheduler.get_velocity(latents, noise, times)
        drawn = self._predict(self.scheduler.add_noise(latents, noise, times), times, condition, beside, present)
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
        parts = []
        for start in range(0, count, POOL_BATCH):
            batch = self.restyler.draw(rng, min(POOL_BATCH, count - start), SHARES, TOGETHER)
            latents, shown = (encode_latents(self.vae, images) for images in (batch.wanted, batch.sources))
            parts.append((latents, shown, *self._restyled_codes(batch), self._tastes(batch, rng)))
        return _Pool(number, *(torch.cat(column) for column in zip(*parts, strict=True)))

    def _restyled_codes(self, batch: Restyled) -> tuple[Tensor, Tensor]:
        """Style codes of the pictures that ``batch`` names before codes of the places of its sources, and before those
        of the right answers: the plain drawings, or, where a picture is its own source, the picture."""
        codes, style = self._codes(batch.wanted), self.spec.tokenizer.style_tokens
        asked, right = codes.clone(), codes.clone()
        others = ~batch.own
        if bool(others.any()):
            plain = self.restyler.plain(batch, others)
            asked[others], right[others] = self._codes(batch.sources[others]), self._codes(plain)
        told = codes[batch.style_rows, :style]
        first, second = (torch.cat([told, places[:, style:]], dim=1) for places in (asked, right))
        return first, second

    def _tastes(self, batch: Restyled, rng: random.Random) -> Tensor:
        """[B, taste width]: the mean over one to all of the other pictures under a picture's look."""
        if self.taste is None:
            return torch.zeros(len(batch.wanted), 0, device=self.batches.device)
        vectors = tastes_of(batch.wanted, self.tokenizer, self.taste)
        tastes = []
        for start in range(0, len(vectors), TOGETHER):
            group = vectors[start : start + TOGETHER]
            for place in range(len(group)):
                others = [row for row in range(len(group)) if row != place] or [place]
                tastes.append(group[rng.sample(others, rng.randint(1, len(others)))].mean(0))
        return torch.stack(tastes)

    def _keep(self) -> Tensor:
        """Float [batch, places]: what is seen of the references."""
        device, places = self.batches.device, self.spec.tokenizer.patches
        kind, dial = torch.rand(2, self.batch, 1, device=device)
        dial = torch.where(kind < UNSEEN_SHARE, 1.0, dial.masked_fill(kind >= 1 - WHOLE_SHARE, 0.0))
        return (torch.rand(self.batch, places, device=device) >= dial).float()

    def _seen(self, asked: Tensor, right: Tensor, shown: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Codes int64 [B, tokens] and visible latents [B, c, h, w]: what is hidden of a reference the language model
        makes up, and at times it makes up all. A picture that is not seen at all may have come from words.
        """
        unseen = (keep == 0).all(1, keepdim=True)
        made_up = torch.rand(len(keep), 1, device=keep.device) < RIGHT_SHARE
        from_reference = ((keep > 0) | unseen) & ~made_up
        style = self.spec.tokenizer.style_tokens
        codes = torch.where(functional.pad(from_reference, (style, 0), value=True), asked, right)
        return codes, visible(shown, keep)

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

    def _predict(
        self, noisy: Tensor, times: Tensor, condition: DecodedCondition, beside: Beside, present: Tensor
    ) -> Tensor:
        side = self.spec.diffusion.image_size
        added = {
            "text_embeds": self.unet.pool(condition.pooled, beside) * present[:, None],
            "time_ids": size_ids(side, side, len(noisy)).to(noisy.device),
        }
        grid = self.unet.project(condition.context, beside) * present[:, None, None, None]
        context = condition.context * present[:, None, None]
        return predict(self.unet, noisy, times, context, added, grid)

    def after_step(self, step: int) -> None:
        self.average.update(self.unet, step)

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        rng = random.Random(1)
        batch, asked = (
            self.valid.draw(random.Random(1), 48, shares, TOGETHER) for shares in (PLAIN_DRAWINGS, REFERENCES)
        )
        images, taste = batch.wanted, None if self.taste is None else self._tastes(batch, rng)
        trained = {name: tensor.clone() for name, tensor in self.unet.state_dict().items()}
        self.unet.load_state_dict(self.average.state_of(self.unet))
        coded = (self._codes(images), self._restyled_codes(batch)[0], self._restyled_codes(asked)[0])
        own, right, other = (self._condition(codes, 0.0) for codes in coded)
        drawn, restyled = self.draw(own, NOTHING), self.draw(right, Beside(taste=taste))
        recalled = self.draw(other, Beside(taste=taste))
        redrawn = self.draw(other, Beside(encode_latents(self.vae, asked.sources), taste))
        self.unet.load_state_dict(trained)
        save_tensor_sheet(
            folder / f"sheet-{step + 1:06d}.png",
            [part[:16] for part in (images, drawn, batch.sources, restyled, asked.sources, recalled, redrawn)],
            ["image", "its codes", "plain drawing", "in its style", "another's", "its codes in style", "seen in style"],
        )
        parts = {"psnr": drawn, "psnr_restyled": restyled, "psnr_recalled": recalled, "psnr_redrawn": redrawn}
        return {name: psnr(part, images) for name, part in parts.items()}

    @torch.no_grad()
    def _remembered(self, images: Tensor) -> Tensor:
        """What the weights with which a pool began draw of the codes of plain pictures [n, 3, H, W]."""
        condition = self._condition(self._codes(images), 0.0)
        return self.draw(condition, NOTHING, REMEMBERED_STEPS, REMEMBERED_GUIDANCE, self.painter)

    def draw(
        self,
        condition: DecodedCondition,
        beside: Beside,
        steps: int | None = None,
        guidance: float | None = None,
        painter: Any = None,
    ) -> Tensor:
        """Pictures [B,3,H,W] in 0..1 of a condition, by default at the model's own steps and guidance."""
        settings = self.spec.diffusion
        count, side = len(condition.context), settings.image_size
        generators = [torch.Generator().manual_seed(stream_seed(0, "sheet", number)) for number in range(count)]
        shape = (settings.unet["out_channels"], settings.unet["sample_size"], settings.unet["sample_size"])
        latents = denoise(
            painter or self.unet,
            self.scheduler,
            condition.context,
            condition.pooled,
            initial_latents(shape, generators).to(condition.context.device),
            steps=steps or settings.steps,
            guidance=settings.guidance if guidance is None else guidance,
            size=(side, side),
            beside=beside,
        )
        return decode_latents(self.vae, latents).permute(0, 3, 1, 2).float() / 255

    def export(self) -> None:
        save_shipped(self.folder, "unet", self.average.state_of(self.unet))
