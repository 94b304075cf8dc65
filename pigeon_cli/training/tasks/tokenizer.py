"""Stage ``tokenizer``: ViT, selector, merger, codebook and embedding decoder, together (RECIPE.md point 3)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.batches import IconBatches, normalise
from pigeon_cli.training.codebook import CodebookKeeper, k_means
from pigeon_cli.training.figures import PixelHead, gradient_loss, psnr, save_tensor_sheet
from pigeon_cli.training.loop import LoopSettings, TrainingTask, slowed
from pigeon_cli.training.losses import contrast
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.training.tokenizer_start import fit_pixels, patches_of, start_decoder, start_encoder
from pigeon_cli.weights.store import ModelFolder

START_PICTURES = 1200
"""Pictures from which the first weights are computed."""
SELECT_FROM, SELECT_TO = 0.6, 0.8
"""Shares of the run between which the token budget goes from all to ``TOKEN_BUDGET``."""
TOKEN_BUDGET = 0.95
SELECTOR_DAMPING = 0.01
"""Share of the selector's gradient that is used; Adam restores its size, the common clipping norm is spared."""
ENCODER_SHARE = 0.1
"""Share of the learning rate that the tokenizer itself gets."""
AGREEMENT_WEIGHT = 0.01
"""Little: what a code says should be about its own patch, or the language model cannot read it."""
PLAIN_SHARE = 0.3
"""References are never transformed, so that plain icons must be read as well as transformed ones."""


class TokenizerTask(TrainingTask):
    """Reconstruction through the codes, commitment, agreement between styles of one meaning, and a token budget."""

    name = "tokenizer"

    def __init__(self, folder: ModelFolder, batches: IconBatches, batch: int, steps: int) -> None:
        self.folder, self.batches, self.batch, self.steps = folder, batches, batch, steps
        spec, device = folder.spec, batches.device
        self.spec = spec
        self.tokenizer = VisualTokenizer(spec.tokenizer).to(device)
        self.tokenizer.quantizer.requires_grad_(False)
        if spec.tokenizer.style_tokens > 0:
            self.tokenizer.style_reader.requires_grad_(False)
        final = cast(nn.Linear, self.tokenizer.selector.out_conv[-1])
        with torch.no_grad():
            # Start from "keep": an undecided selector would drop half of the patches on its first noisy step.
            final.bias.copy_(torch.tensor([2.0, -2.0]))
        self.decoder = EmbeddingDecoder(spec.decoder).to(device)
        self.head = PixelHead(spec.decoder.context_width, spec.tokenizer.grid, spec.tokenizer.image_size).to(device)
        self.contrast = nn.Linear(spec.tokenizer.width, 128).to(device)
        self.keeper = CodebookKeeper(spec.tokenizer.patch_codes, spec.tokenizer.code_width).to(device)
        self.modules = {
            "tokenizer": self.tokenizer,
            "decoder": self.decoder,
            "head": self.head,
            "contrast": self.contrast,
            "keeper": self.keeper,
        }
        self.latest: tuple[Tensor, Tensor] | None = None
        self.pairs = [records for records in self._train_meanings() if len(records) > 1]

    def _train_meanings(self) -> list[list[int]]:
        groups: dict[str, list[int]] = {}
        for record in self.batches.train:
            groups.setdefault(record.meaning, []).append(record.id)
        return list(groups.values())

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        images = self._pairs(rng)
        # On a CPU the fused attention's backward takes 3 times longer than plain products over 64 patches.
        with sdpa_kernel(SDPBackend.MATH):
            drawn, vectors, codes, keep, merged = self._through(images, step)
        absolute = (drawn - images).abs().mean()
        edges = gradient_loss(drawn, images)
        with torch.no_grad():
            quantised = self.tokenizer.quantizer.lookup(codes)
        kept = keep.detach() > 0.5
        commitment = ((vectors - quantised).square().sum(-1) * kept).sum() / kept.sum()
        pooled = (merged * keep.unsqueeze(-1)).sum(1) / keep.sum(1, keepdim=True)
        first, second = functional.normalize(self.contrast(pooled).float(), dim=-1).chunk(2)
        agreement = contrast(first, second)
        share = keep.mean()
        budget = functional.relu(share - self._budget(step))
        total = absolute + 0.5 * edges + 0.25 * commitment + AGREEMENT_WEIGHT * agreement + budget
        self.latest = (vectors.detach()[kept], codes[kept])
        return {"loss": total, "l1": absolute, "edges": edges, "agreement": agreement, "kept": share}

    def _pairs(self, rng: random.Random) -> Tensor:
        chosen = [rng.sample(ids, 2) for ids in rng.choices(self.pairs, k=self.batch // 2)]
        records = [self.batches.dataset.records[pair[side]] for side in (0, 1) for pair in chosen]
        return self.batches.pictures(records, rng, PLAIN_SHARE)

    def _budget(self, step: int) -> float:
        progress = (step / self.steps - SELECT_FROM) / (SELECT_TO - SELECT_FROM)
        return 1.0 - (1.0 - TOKEN_BUDGET) * min(1.0, max(0.0, progress))

    def _through(self, images: Tensor, step: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Pictures [B,3,H,W] to (drawn, unit vectors, codes, keep, merged); ``step`` None is evaluation."""
        features = self.tokenizer.patch_features(normalise(images))
        keep = torch.ones(features.shape[:2], device=features.device)
        if step is None:
            keep = self.tokenizer.select(features)
        elif step >= SELECT_FROM * self.steps:
            noise = torch.empty(*features.shape[:2], 2, device=features.device).exponential_().clamp_min(1e-8)
            # Attention weights hand the selector gradients a hundred times larger than all others; undamped and through
            # the encoder they undo what it has learned.
            decided = self.tokenizer.select(features.detach(), noise)
            keep = decided.detach() + SELECTOR_DAMPING * (decided - decided.detach())
        merged, vectors = self.tokenizer.merge(features, keep)
        vectors = functional.normalize(vectors.float(), dim=-1)
        codes = self.tokenizer.quantize(vectors)
        passed = vectors + (self.tokenizer.quantizer.lookup(codes) - vectors).detach()
        order = (keep < 0.5).to(torch.int8).argsort(dim=1, stable=True)
        packed = passed.gather(1, order.unsqueeze(-1).expand_as(passed))
        packed_keep = keep.gather(1, order)
        # The keep values alone hide dropped codes; a mask would also cut their gradient. Style tokens are hidden: they
        # are learned in a stage of their own.
        style = self.spec.tokenizer.style_tokens
        packed, packed_keep = functional.pad(packed, (0, 0, style, 0)), functional.pad(packed_keep, (style, 0))
        context = self.decoder(packed, torch.ones_like(packed_keep, dtype=torch.bool), packed_keep).context
        return self.head(context).float(), vectors, codes, keep, merged

    @torch.no_grad()
    def _vectors(self, images: Tensor) -> Tensor:
        """Unit task vectors [B * patches, code_width] of pictures [B,3,H,W]."""
        features = self.tokenizer.patch_features(normalise(images))
        _, vectors = self.tokenizer.merge(features, torch.ones(features.shape[:2], device=features.device))
        return functional.normalize(vectors.float(), dim=-1).flatten(0, 1)

    def _codebook(self) -> Tensor:
        """The rows that patches have for themselves."""
        return self.tokenizer.quantizer.embedding.weight[: len(self.keeper.counts)]

    def _fit_networks(self, pictures: Tensor) -> None:
        """Tokenizer, codebook and decoder, from ``pictures`` alone."""
        start_encoder(self.tokenizer, normalise(pictures))
        start_decoder(self.decoder)
        vectors = torch.cat([self._vectors(part) for part in pictures.split(self.batch)])
        self._codebook().copy_(k_means(vectors, len(self.keeper.counts)))

    @torch.no_grad()
    def _fit_rest(self, pictures: Tensor) -> None:
        """The throwaway head and the keeper's averages, from ``pictures`` and whatever tokenizer and decoder are."""
        self.keeper.begin(self._codebook())
        contexts = []
        for part in pictures.split(self.batch):
            codes = self.tokenizer.quantize(self._vectors(part)).unflatten(0, (len(part), -1))
            codes = functional.pad(codes, (self.spec.tokenizer.style_tokens, 0), value=-1)
            contexts.append(self.decoder(self.tokenizer.quantizer.lookup(codes), codes >= 0).context.flatten(0, 1))
        fit_pixels(self.head.pixels, torch.cat(contexts), patches_of(pictures, self.spec.tokenizer.patch_size))

    def start(self) -> None:
        pictures = self.batches.draw(random.Random(0), START_PICTURES)
        self._fit_networks(pictures)
        self._fit_rest(pictures)

    def start_from(self, folder: ModelFolder) -> None:
        pictures = self.batches.draw(random.Random(0), START_PICTURES)
        # The folder may hold only one of tokenizer and decoder.
        self._fit_networks(pictures)
        super().start_from(folder)
        self._fit_rest(pictures)

    def parameter_groups(self, settings: LoopSettings) -> list[dict[str, Any]]:
        """The encoder moves slowly: the codebook's moving averages must be able to follow it."""
        encoder = set(self.tokenizer.parameters())
        return slowed(super().parameter_groups(settings), encoder, settings.learning_rate * ENCODER_SHARE)

    def after_step(self, step: int) -> None:
        if self.latest is not None:
            vectors, codes = self.latest
            self.keeper.update(self._codebook(), vectors, codes, step)

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        images = self.batches.fixed_valid(192)
        drawn, _, codes, keep, _ = self._through(images, None)
        kept = keep > 0.5
        counts = torch.bincount(codes[kept], minlength=len(self.keeper.counts)).float()
        shares = counts / counts.sum()
        config = self.tokenizer.config
        patches = 0.3 + 0.7 * keep.unflatten(1, (config.grid, config.grid)).unsqueeze(1)
        shown = images * functional.interpolate(patches, scale_factor=config.patch_size)
        save_tensor_sheet(
            folder / f"sheet-{step + 1:06d}.png", [images[:12], drawn[:12], shown[:12]], ["image", "codes", "kept"]
        )
        return {
            "psnr": psnr(drawn, images),
            "kept": float(keep.mean()),
            "perplexity": float(torch.exp(-(shares * (shares + 1e-9).log()).sum())),
            "living_codes": float((self.keeper.counts > self.keeper.dead_below).float().mean()),
        }

    def export(self) -> None:
        save_shipped(self.folder, "tokenizer", self.tokenizer.state_dict())
        save_shipped(self.folder, "decoder", self.decoder.state_dict())
