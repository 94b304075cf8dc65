"""Stage 1, masked preference reconstruction: LoRA, adapter and a mask generator that learns (DESIGN.md section 2)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pigeon_cli.models.adapter import Adapter
from pigeon_cli.models.lora import load_lora, lora_state
from pigeon_cli.models.mask_generator import HISTORY, MaskDecision, MaskGenerator, decide
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.pipeline.mask import TokenLayout
from pigeon_cli.pipeline.positions import token_positions
from pigeon_cli.pipeline.prompt import pad_prompts
from pigeon_cli.training.frozen_reader import frozen_reader
from pigeon_cli.training.loop import LoopSettings, TrainingTask
from pigeon_cli.training.losses import (
    NearCodes,
    contrast,
    mask_supervision_loss,
    nearest_codes,
    reconstruction_loss,
)
from pigeon_cli.training.request_codes import Sampler
from pigeon_cli.training.request_prompts import RequestPrompts
from pigeon_cli.training.request_sheet import CodedSheet, imagine_codes
from pigeon_cli.training.sequences import CodedRequest
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.training.trained_lora import base_with_lora
from pigeon_cli.weights.checkpoint import load_part, read_part, save_part
from pigeon_cli.weights.store import ModelFolder

HISTORY_MASK = 0.2
"""Share of the history's tokens that are dropped (alpha_h), whatever the model's default at generation is."""
MASK_SUPERVISION = 1.0
"""Weight of the cross-entropy on planted tokens, which the sampler of requests knows (RECIPE.md point 8). With the
recipe's 0.1 the reconstruction's gradient wins, and what the mask knew of planted images is lost."""
MASK_ALONE = 0.5
"""Share of the steps, at the start, in which the mask learns from planted images alone, at half the cost of a step."""
SUPERVISED_REQUESTS = 3
"""Requests with planted images for the supervision of the mask, per request that is reconstructed."""
CONTRASTED_REQUESTS = 8
"""Users of whom two images are compared with those of all others, per request that is reconstructed."""
MASK_RATE = 3.0
"""Learning rate of the mask generator, as a multiple of the stage's."""
LEAST_HIDDEN = {"mini": 0.7}
"""By model, the share of a reference that is hidden at least where it is the target itself: in ``mini``, which sees
every place of it, a copied reference teaches copying. The paper's recipe hides any share."""
HIDES_THE_REST = frozenset({"mini"})
"""Models that hide of a reference what agrees least with the history, in training as at generation. The paper hides
what agrees most in training and keeps it at generation: with a gradient, the mask then learns to hide, and so later to
keep, what is of no use (``mini``: the white paper)."""
UNASKED_SHARE = {"mini": 0.1}
"""By model, the share of answers that follow an image start and nothing else: guidance goes from what is drawn then to
what is drawn when asked, and a LoRA that learns the one alone moves the other along (model card, fifth training)."""
NOISE_UNTIL = 0.5
"""Share of the other steps over which the Gumbel noise of the mask is annealed away."""


class ReconstructTask(TrainingTask):
    """Cross-entropy on the target's codes and image end, given a masked history and a masked reference."""

    name = "reconstruct"
    shares = True

    def __init__(
        self,
        folder: ModelFolder,
        tokenizer: VisualTokenizer,
        sampler: Sampler,
        held_out: dict[str, list[CodedRequest]],
        sheet: CodedSheet,
        batch: int,
        steps: int,
        out: ModelFolder | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.out = out or folder
        self.least_hidden = LEAST_HIDDEN.get(folder.spec.name, 0.0)
        self.unasked_share = UNASKED_SHARE.get(folder.spec.name, 0.0)
        self.hides_agreeing = folder.spec.name not in HIDES_THE_REST
        self.folder, self.tokenizer, self.sampler = folder, tokenizer, sampler
        self.held_out, self.sheet, self.batch, self.steps = held_out, sheet, batch, steps
        spec = self.spec = folder.spec
        self.device = tokenizer.quantizer.embedding.weight.device
        language, self.embedding = base_with_lora(folder, gradient_checkpointing)
        self.language = language.to(self.device)
        self.adapter = Adapter(spec.adapter).to(self.device)
        load_part(self.adapter, folder.part("base_adapter"))
        self.mask = MaskGenerator(spec.mask_generator).to(self.device)
        self.mask_alone = MASK_ALONE
        if not sampler.has_strangers:
            # Of one taste alone a mask would learn to take it for many.
            self.mask_alone = 0.0
            load_part(self.mask, folder.part("mask_generator"))
            self.mask.requires_grad_(False)
        self.patient_from = int(self.mask_alone * steps)
        reader = frozen_reader(folder, tokenizer.quantizer, self.adapter, self.device)
        self.prompts = RequestPrompts(spec, sampler.text, reader, self.embedding)
        self.near = NearCodes(nearest_codes(tokenizer.quantizer.embedding.weight), spec.vocabulary.first_code)
        self.modules = {"language": self.language, "adapter": self.adapter, "mask_generator": self.mask}

    def parameter_groups(self, settings: LoopSettings) -> list[dict[str, Any]]:
        fast = [p for p in self.mask.parameters() if p.requires_grad]
        slow = [p for module in (self.language, self.adapter) for p in module.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": slow, "weight_decay": 0.0},
            {"params": fast, "weight_decay": 0.0, "lr": settings.learning_rate * MASK_RATE},
        ]
        return [group for group in groups if group["params"]]

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        if step < self.mask_alone * self.steps:
            supervision = self._supervise(rng, 0.0)
            return {"loss": supervision, "supervision": supervision}
        drawn = [self.sampler.draw(rng) for _ in range(self.batch * self.share.count)]
        alphas = self.share.of([rng.uniform(self.least_hidden, 1.0) if one.is_self else rng.random() for one in drawn])
        requests = self.share.of(drawn)
        progress = (step / self.steps - self.mask_alone) / (1 - self.mask_alone)
        noise = max(0.0, 1 - progress / NOISE_UNTIL)
        layout, decision = self._decide(requests, alphas, invert=self.hides_agreeing, noise=noise)
        reconstruction = self._reconstruct(requests, layout, decision)
        if not self.sampler.has_strangers:
            return {"loss": reconstruction, "reconstruction": reconstruction}
        supervision = self._supervise(rng, noise)
        return {
            "loss": reconstruction + MASK_SUPERVISION * supervision,
            "reconstruction": reconstruction,
            "supervision": supervision,
        }

    def _supervise(self, rng: random.Random, noise: float) -> Tensor:
        """The mask's loss on requests of its own, which cost little because no picture is predicted."""
        count = SUPERVISED_REQUESTS * self.batch * self.share.count
        drawn = [self.sampler.draw(rng, planted_share=1.0) for _ in range(count)]
        alphas, requests = self.share.of([rng.random() for _ in drawn]), self.share.of(drawn)
        layout, decision = self._decide(requests, alphas, invert=self.hides_agreeing, noise=noise)
        planted = mask_supervision_loss(decision.margin, planted_columns(layout, requests), layout.types == HISTORY)
        return planted + self._contrast(rng) if self.spec.mask_generator.image_layers > 0 else planted

    def _contrast(self, rng: random.Random) -> Tensor:
        """InfoNCE between two liked images of each of many users, as the mask's own layers within images see them.

        Before the mask can tell who does not fit, it has to see how an image is drawn.
        """
        count = CONTRASTED_REQUESTS * self.batch * self.share.count
        requests = self.share.of([self.sampler.draw(rng, planted_share=0.0) for _ in range(count)])
        alone = [replace(one, history=(one.history[place],), reference=()) for place in (0, 1) for one in requests]
        layout = self.prompts.layout(alone)
        embedded = self.embedding(layout.ids)
        within = self.mask.within_images(embedded, layout.positions, layout.types, layout.images)
        vectors, _ = self.mask.image_vectors(within, layout.types, layout.images)
        first, second = vectors[:, 1].chunk(2)
        return contrast(first, second)

    def _decide(
        self, requests: Sequence[CodedRequest], alphas: Sequence[float], *, invert: bool, noise: float
    ) -> tuple[TokenLayout, MaskDecision]:
        layout = self.prompts.layout(requests)
        scores = self.mask(self.embedding(layout.ids), layout.positions, layout.types, layout.images).float()
        drawn = None
        if noise > 0:
            uniform = torch.rand(scores.shape, device=self.device).clamp(1e-9, 1 - 1e-7)
            drawn = -torch.log(-torch.log(uniform)) * noise
        return layout, decide(
            scores,
            layout.types,
            HISTORY_MASK,
            [round(alpha, 6) for alpha in alphas],
            invert_reference=invert,
            temperature=self.mask.temperature,
            surrogate_tau=self.spec.mask_generator.surrogate_tau,
            noise=drawn,
        )

    def _reconstruct(self, requests: Sequence[CodedRequest], layout: TokenLayout, decision: MaskDecision) -> Tensor:
        unasked = self.unasked_share if self.language.training else 0.0
        prompts = [
            self.prompts.unasked(request.answer)
            if float(torch.rand(())) < unasked
            else self.prompts.prompt(request, request.answer)
            for request in requests
        ]
        batch = pad_prompts(prompts, self.spec.vocabulary)
        keep = decision.keep
        if self.spec.mask_generator.image_layers > 0:
            # What the mask knows of strangers it has learned from them; this loss would have it forget that again.
            keep = torch.where(layout.types == HISTORY, keep.detach(), keep)
        embedded, attention = self.prompts.embed(batch, layout, keep).embedded, batch.attention.to(self.device)
        positions = token_positions(batch.ids.to(self.device), attention, self.spec)
        logits = self.language(inputs_embeds=embedded, attention_mask=attention, position_ids=positions).logits
        return reconstruction_loss(logits, batch.labels.to(self.device), self.near if self.language.training else None)

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        figures = {}
        for name, requests in self.held_out.items():
            total, right, dropped = 0.0, 0, 0
            for start in range(0, len(requests), 16):
                part = requests[start : start + 16]
                layout, decision = self._decide(part, [0.3] * len(part), invert=False, noise=0.0)
                total += float(self._reconstruct(part, layout, decision)) * len(part)
                gone = (decision.keep < 0.5) & (layout.types == HISTORY)
                right += int((gone & planted_columns(layout, part)).sum())
                dropped += int(gone.sum())
            figures[f"{name}_loss"] = total / len(requests)
            if any(request.planted for request in requests):
                figures[f"{name}_mask_precision"] = right / dropped
        layout, decision = self._decide(self.sheet.coded, [0.3] * len(self.sheet.coded), invert=False, noise=0.0)
        prompts = pad_prompts([self.prompts.prompt(one, None) for one in self.sheet.coded], self.spec.vocabulary)
        read, ids = self.prompts.embed(prompts, layout, decision.keep), prompts.ids.to(self.device)
        codes = imagine_codes(self.language, self.folder, read, ids, prompts.attention.to(self.device))
        self.sheet.save(folder / f"sheet-{step + 1:06d}.png", codes)
        return figures

    def start_from(self, folder: ModelFolder) -> None:
        load_lora(self.language, read_part(folder.part("lora")))
        load_part(self.adapter, folder.part("adapter"))
        load_part(self.mask, folder.part("mask_generator"))

    def export(self) -> None:
        states = {
            "lora": lora_state(self.language),
            "adapter": self.adapter.state_dict(),
            "mask_generator": self.mask.state_dict(),
        }
        for name, state in states.items():
            if self.out is self.folder:
                save_shipped(self.folder, name, state)
            else:
                # An alignment is what stage 2 goes on from, so it keeps every bit.
                save_part(self.out.part(name), state, torch.float32)


def planted_columns(layout: TokenLayout, requests: Sequence[CodedRequest]) -> Tensor:
    """Bool [B, L]: history tokens of planted images."""
    planted = torch.zeros_like(layout.types, dtype=torch.bool)
    for row, request in enumerate(requests):
        for position in request.planted:
            planted[row] |= (layout.images[row] == position + 1) & (layout.types[row] == HISTORY)
    return planted
