"""Stage 2, pairwise preference alignment: DPO on the LoRA alone (DESIGN.md section 2)."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor

from pigeon_cli.models.adapter import Adapter
from pigeon_cli.models.lora import REFERENCE, active_adapter, add_reference_adapter, load_lora, lora_state
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.pipeline.prompt import pad_prompts
from pigeon_cli.training.code_sheet import CodeSheet
from pigeon_cli.training.frozen_reader import frozen_reader
from pigeon_cli.training.loop import LoopSettings, TrainingTask
from pigeon_cli.training.losses import PreferenceLoss, dpo_loss
from pigeon_cli.training.pair_prompts import PreparedPairs, prepare_pairs, recorded_keep
from pigeon_cli.training.pairs import PreferencePair
from pigeon_cli.training.request_prompts import RequestPrompts
from pigeon_cli.training.request_sheet import imagine_codes
from pigeon_cli.training.trained_lora import base_with_lora
from pigeon_cli.weights.checkpoint import load_part, read_part, save_part
from pigeon_cli.weights.store import ModelFolder

BETA = 0.1
HELD_OUT_AT_MOST = 128


class PreferencesTask(TrainingTask):
    """The policy is the LoRA in training, the reference a frozen copy of it as it came from stage 1.

    A batch is prepared once and read by both; all dropout is off, so that the first loss is ln 2. The prompt's
    reference is hidden as it was where one of the two candidates was drawn.
    """

    name = "preferences"
    shares = True

    def __init__(
        self,
        folder: ModelFolder,
        tokenizer: VisualTokenizer,
        text: sentencepiece.SentencePieceProcessor,
        pairs: Sequence[PreferencePair],
        sheet: CodeSheet,
        batch: int,
        out: ModelFolder,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.folder, self.sheet, self.batch, self.out = folder, sheet, batch, out
        self.held_out, self.train = split_pairs(pairs)
        spec = self.spec = folder.spec
        device = tokenizer.quantizer.embedding.weight.device
        language, embedding = base_with_lora(folder, gradient_checkpointing)
        load_lora(language, read_part(folder.part("lora")))
        add_reference_adapter(language, spec.language)
        self.language = language.to(device)
        adapter = Adapter(spec.adapter).to(device)
        load_part(adapter, folder.part("adapter"))
        reader = frozen_reader(folder, tokenizer.quantizer, adapter.requires_grad_(False).eval(), device)
        self.prompts = RequestPrompts(spec, text, reader, embedding)
        self.modules = {"language": self.language}

    def parameter_groups(self, settings: LoopSettings) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.language.parameters() if p.requires_grad], "weight_decay": 0.0}]

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        count = self.batch * self.share.count
        drawn = rng.sample(self.train, count) if count <= len(self.train) else rng.choices(self.train, k=count)
        hidden = self.share.of([rng.random() < 0.5 for _ in drawn])
        pairs = self.share.of(drawn)
        without_dropout(self.language)
        return self._figures(self._preference(prepare_pairs(self.prompts, pairs, hidden)))

    def _preference(self, batch: PreparedPairs) -> PreferenceLoss:
        policy = batch.log_probabilities(self.language)
        with torch.no_grad(), active_adapter(self.language, REFERENCE):
            reference = batch.log_probabilities(self.language)
        return dpo_loss(*policy, *reference, beta=BETA)

    def _figures(self, found: PreferenceLoss) -> dict[str, Tensor]:
        margin = found.chosen_rewards - found.rejected_rewards
        return {
            "loss": found.mean,
            "chosen_reward": found.chosen_rewards.mean(),
            "rejected_reward": found.rejected_rewards.mean(),
            "margin": margin.mean(),
            "preferred": (margin > 0).float().mean(),
        }

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        totals: dict[str, float] = {}
        for start in range(0, len(self.held_out), self.batch):
            pairs = self.held_out[start : start + self.batch]
            found = self._preference(prepare_pairs(self.prompts, pairs, [False] * len(pairs)))
            for name, value in self._figures(found).items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(pairs)
        self.sheet.save(folder / f"sheet-{step + 1:06d}.png", self._imagine(self.held_out[: len(self.sheet.coded)]))
        return {f"valid_{name}": total / len(self.held_out) for name, total in totals.items()}

    def _imagine(self, pairs: Sequence[PreferencePair]) -> list[tuple[int, ...]]:
        """What the policy draws for ``pairs`` where their chosen candidates were drawn."""
        requests = [pair.coded() for pair in pairs]
        batch = pad_prompts([self.prompts.prompt(request, None) for request in requests], self.spec.vocabulary)
        layout = self.prompts.layout(requests)
        keep = recorded_keep(layout, [pair.history_kept for pair in pairs], [pair.chosen.kept for pair in pairs])
        read, guidance = self.prompts.embed(batch, layout, keep), self.spec.sampling.guidance
        device = layout.ids.device
        ids, attention = batch.ids.to(device), batch.attention.to(device)
        return imagine_codes(self.language, self.folder, read, ids, attention, guidance)

    def export(self) -> None:
        # In full precision: the steps of this stage are small beside bf16's.
        save_part(self.out.part("lora"), lora_state(self.language), torch.float32)
        for name in ("adapter", "mask_generator"):
            save_part(self.out.part(name), read_part(self.folder.part(name)), torch.float32)


def without_dropout(module: torch.nn.Module) -> None:
    """All dropout off, in whatever mode the rest is: activations are recomputed in training mode only."""
    for each in module.modules():
        if isinstance(each, torch.nn.Dropout):
            each.eval()


def split_pairs(pairs: Sequence[PreferencePair]) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """(held out, train): one request in ten is held out by the hash of its number, ``HELD_OUT_AT_MOST`` of them used.

    A file too short for that is its own check.
    """
    held_out = [pair for pair in pairs if zlib.crc32(str(pair.request).encode()) % 10 == 0]
    train = [pair for pair in pairs if zlib.crc32(str(pair.request).encode()) % 10 != 0]
    return (held_out or train)[:HELD_OUT_AT_MOST], train or held_out
