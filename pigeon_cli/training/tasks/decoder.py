"""Stage ``decoder``: the UNet that draws latents from codes, from what is seen of a reference, and from a history
(RECIPE, point 5).

It comes after ``translator``, whose head it reads from the checkpoint of that stage's run, so as to draw codes as they
will be at generation. Where there is no such checkpoint, or no translator, what would be translated is the codes of the
source as they are.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.diffusion import (
    NOTHING,
    Beside,
    build_scheduler,
    build_unet,
    build_vae,
    predict,
    size_ids,
)
from pigeon_cli.models.embedding_decoder import DecodedCondition, EmbeddingDecoder
from pigeon_cli.models.memory import to_patches
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.code_head import load_translation
from pigeon_cli.training.decoder_batches import DecoderBatch, DecoderBatches
from pigeon_cli.training.drawn_pictures import draw_pictures
from pigeon_cli.training.encoded_groups import EncodedGroups, GroupEncoder, joined
from pigeon_cli.training.figures import psnr, save_tensor_sheet
from pigeon_cli.training.frozen_reader import frozen, frozen_taste_reader
from pigeon_cli.training.looked_groups import GROUP, LookedGroups
from pigeon_cli.training.loop import LoopSettings, MovingAverage, TrainingTask
from pigeon_cli.training.pixel_metric import pixel_metric
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.training.sources import SourceShares
from pigeon_cli.training.stored_drawings import StoredDrawings
from pigeon_cli.weights.store import ModelFolder

EMPTY_SHARE = 0.08
"""Share of pictures drawn without condition, for guidance."""
MINIMUM_SNR, LIFT = 5.0, 1.0
PURE_NOISE = 0.2
"""Share of pictures at the last timestep, where most of what is drawn is decided."""
SEEN_SHARE = 0.5
"""What errors count as their pixels go (:mod:`pigeon_cli.training.pixel_metric`); by their squares alone the others."""
SIDE: Final = 2
"""Places of the latents in one patch of that metric, each way."""
MATRIX_DECAY, AVERAGE_DECAY = 0.02, 0.9992
SHARES = SourceShares(own=0.05, plain=0.45, alike=0.1, kin=0.18)
"""The last 0.22 are drawn from other families, which a reference of a user mostly is."""
VALID_SHARES = SourceShares(own=0.0, plain=0.3, kin=0.3)
PLAIN_DRAWINGS, REFERENCES = SourceShares(0.0, 1.0), SourceShares(0.0, 0.0, kin=1.0)
"""What evaluation draws valid pictures from."""
VALID_GROUPS, SHEET_GROUPS = 12, 6
SHEET_STEP = 3
"""Of the pictures that are drawn for the figures, every so many is on the sheet."""
POOL_STEPS, POOL_BATCHES = 1000, 200
"""So many steps draw from one pool of so many batches of encoded pictures: reading a picture costs more than a step on
it."""
GROUPS_AT_ONCE = 8
"""Groups that are read together."""


class DecoderTask(TrainingTask):
    """v-prediction on scaled latents with zero terminal SNR and min-SNR weights, of whole groups of pictures.

    A batch is rounded up to a multiple of ``GROUP``.
    """

    name = "decoder"

    def __init__(
        self,
        folder: ModelFolder,
        batches: IconBatches,
        tokenizer: VisualTokenizer,
        batch: int,
        steps: int,
        translator_checkpoint: Path,
    ) -> None:
        self.folder, self.tokenizer, self.steps = folder, tokenizer, steps
        self.groups = -(-batch // GROUP)
        self.spec, self.device = folder.spec, batches.device
        spec, device = self.spec, self.device
        # diffusers does not say what its classes can do.
        self.unet = cast(Any, build_unet(spec.diffusion, spec.decoder.context_width)).to(
            device, memory_format=torch.channels_last
        )
        self.average = MovingAverage(self.unet, AVERAGE_DECAY).to(device)
        self.modules = {"unet": self.unet, "average": self.average}
        self.scheduler = cast(Any, build_scheduler(spec.diffusion))
        self.embedding_decoder = frozen(EmbeddingDecoder(spec.decoder), folder, "decoder", device)
        vae = cast(Any, build_vae(spec.diffusion)).to(memory_format=torch.channels_last)
        self.vae = frozen(vae, folder, "vae", device)
        taste = frozen_taste_reader(folder, device) if spec.diffusion.taste_width else None
        self.stored = _stored_drawings(folder, batches, self.vae)
        self.encoder = GroupEncoder(self.vae, tokenizer, taste, self.stored if spec.diffusion.history_plain else None)
        translation = load_translation(folder, tokenizer.quantizer, translator_checkpoint, device)
        self.conditions = DecoderBatches(spec, tokenizer.quantizer, translation)
        self.train_groups = LookedGroups(batches, batches.train, SHARES, self.stored)
        self.valid_groups = [
            LookedGroups(batches, batches.valid, shares) for shares in (VALID_SHARES, PLAIN_DRAWINGS, REFERENCES)
        ]
        probed = self._encoded(self.train_groups, random.Random(stream_seed(0, "decoder metric")), GROUPS_AT_ONCE)
        self.metric = pixel_metric(self.vae, probed.wanted.float().cpu(), SIDE).to(device)
        self.pool: tuple[int, EncodedGroups] | None = None
        self.valid: EncodedGroups | None = None

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        pool = self._pool(step // POOL_STEPS)
        return self._losses(self.conditions.draw(pool.groups(rng.sample(range(len(pool)), self.groups))))

    def _pool(self, number: int) -> EncodedGroups:
        """Groups of this pool alone: a resumed run must find the same ones."""
        if self.pool is None or self.pool[0] != number:
            count = self.groups * min(self.steps, POOL_BATCHES)
            rng = random.Random(stream_seed(0, "decoder pool", number))
            self.pool = number, self._encoded(self.train_groups, rng, count)
        return self.pool[1]

    @torch.no_grad()
    def _encoded(self, groups: LookedGroups, rng: random.Random, count: int) -> EncodedGroups:
        sizes = [min(GROUPS_AT_ONCE, count - start) for start in range(0, count, GROUPS_AT_ONCE)]
        return joined([self.encoder.encode(groups.draw(rng, size)) for size in sizes])

    def _losses(self, batch: DecoderBatch) -> dict[str, Tensor]:
        latents, device = batch.latents, self.device
        with torch.no_grad():
            condition = self._condition(batch.codes)
        present = (torch.rand(len(latents), device=device) >= EMPTY_SHARE).float()
        noise = torch.randn_like(latents)
        count = self.scheduler.config.num_train_timesteps
        times = torch.randint(0, count, (len(latents),), device=device)
        times = times.masked_fill(torch.rand(len(latents), device=device) < PURE_NOISE, count - 1)
        target = self.scheduler.get_velocity(latents, noise, times)
        drawn = self._predict(self.scheduler.add_noise(latents, noise, times), times, condition, batch, present)
        apart = drawn.float() - target
        errors = apart.square().mean((1, 2, 3))
        seen = (to_patches(apart, SIDE) @ self.metric).square().mean((1, 2))
        signal = self.scheduler.alphas_cumprod.to(device)[times]
        ratio = signal / (1 - signal).clamp_min(1e-8)
        # Min-SNR weights of v-prediction: min(snr, 5) / (snr + 1), lifted so that pure noise counts no less.
        weights = (ratio.clamp(max=MINIMUM_SNR) + LIFT) / (ratio + 1)
        mixed = SEEN_SHARE * seen + (1 - SEEN_SHARE) * errors
        return {"loss": (mixed * weights).mean(), "mse": errors.mean()}

    def _condition(self, codes: Tensor) -> DecodedCondition:
        condition: DecodedCondition = self.embedding_decoder(self.tokenizer.quantizer.lookup(codes), codes >= 0)
        return condition

    def _predict(
        self, noisy: Tensor, times: Tensor, condition: DecodedCondition, batch: DecoderBatch, present: Tensor
    ) -> Tensor:
        side = self.spec.diffusion.image_size
        context, pooled = self._attend(condition, batch)
        added = {
            "text_embeds": pooled * present[:, None],
            "time_ids": size_ids(side, side, len(noisy)).to(noisy.device),
        }
        grid = self.unet.project(condition.context, batch.beside) * present[:, None, None, None]
        return predict(self.unet, noisy, times, context * present[:, None, None], added, grid)

    def _attend(self, condition: DecodedCondition, batch: DecoderBatch) -> tuple[Tensor, Tensor]:
        """``GridUNet.attend``, but every picture is read once for all that have it as history."""
        pooled = self.unet.tell(condition.pooled, batch.beside.taste)
        if not self.unet.history_pictures:
            return condition.context, pooled
        tokens, features = self.unet.liked(batch.liked.contiguous(memory_format=torch.channels_last))
        rows, seen = batch.histories.rows, batch.histories.seen
        tokens, told = self.unet.liked.join(tokens[rows], features[rows], seen)
        return torch.cat([condition.context.to(tokens.dtype), tokens], dim=1), pooled + told

    def after_step(self, step: int) -> None:
        self.average.update(self.unet, step)

    def parameter_groups(self, settings: LoopSettings) -> list[dict[str, Any]]:
        return super().parameter_groups(replace(settings, weight_decay=MATRIX_DECAY))

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        """Loss on a fixed batch of valid pictures, and how near drawings of some come to them: from their own codes
        alone, and with a history from their plain drawings and from another set's."""
        mixed, plain, others = self.valid_groups
        if self.valid is None:
            self.valid = self._encoded(mixed, random.Random(1), VALID_GROUPS)
        drawings, references = (groups.draw(random.Random(2), SHEET_GROUPS) for groups in (plain, others))
        first, second = self.encoder.encode(drawings), self.encoder.encode(references)
        with self.average.in_place_of(self.unet):
            # The next step seeds the stream anew.
            torch.manual_seed(1)
            loss = float(self._losses(self.conditions.draw(self.valid))["loss"])
            parts = {
                "psnr": self.draw(first.wanted_codes.long(), NOTHING),
                "psnr_restyled": self._redrawn(first, translated=False),
                "psnr_redrawn": self._redrawn(second, translated=True),
            }
        coded, restyled, redrawn = parts.values()
        columns = drawings.wanted, coded, drawings.sources, restyled, references.sources, redrawn
        save_tensor_sheet(
            folder / f"sheet-{step + 1:06d}.png",
            [part[::SHEET_STEP] for part in columns],
            ["image", "its codes", "plain drawing", "with a history", "another's", "with a history"],
        )
        return {"valid_loss": loss} | {name: psnr(part, drawings.wanted) for name, part in parts.items()}

    def _redrawn(self, groups: EncodedGroups, translated: bool) -> Tensor:
        batch = self.conditions.whole(groups, translated)
        return self.draw(batch.codes, batch.with_history())

    def draw(self, codes: Tensor, beside: Beside) -> Tensor:
        """Pictures [B, 3, H, W] in 0..1 of codes int64 [B, tokens], at the model's own steps and guidance."""
        streams = [torch.Generator().manual_seed(stream_seed(0, "sheet", number)) for number in range(len(codes))]
        return draw_pictures(self.unet, self.vae, self.spec.diffusion, self._condition(codes), streams, beside)

    def export(self) -> None:
        save_shipped(self.folder, "unet", self.average.state_of(self.unet))


def _stored_drawings(folder: ModelFolder, batches: IconBatches, vae: AutoencoderKL) -> StoredDrawings | None:
    """What the folder's memory holds of ``batches``; ``None`` where there is no memory yet."""
    if folder.spec.memory is None or not folder.part("memory").is_file():
        return None
    return StoredDrawings(folder, sorted({record.meaning for record in batches.train}), vae, batches.device)
