"""Stage ``translator``: what a reference's places become in the style of a history, told by codes alone.

Its head is no part of the model, but the stage ``decoder`` reads it from this stage's checkpoint. A sheet of drawings
is left only where there is an image generator already.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pigeon_cli.core.errors import UsageError
from pigeon_cli.models.translator import Translator
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.code_cache import EncodedLook
from pigeon_cli.training.code_head import CodeHead
from pigeon_cli.training.data.looks import PLAIN, geometry_of
from pigeon_cli.training.loop import LoopSettings, TrainingTask, without
from pigeon_cli.training.losses import NearCodes, nearest_codes, soft_cross_entropy
from pigeon_cli.training.request_sheet import RequestSheet
from pigeon_cli.training.sequences import CodedRequest, SequenceSampler, mean_style, misled, most_typical, padded
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.weights.store import ModelFolder

MOVED_SHARE = 0.25
"""Share of right answers that a look moves, about as many as looks that move."""
HIDDEN_SHARE = 0.25
"""Share of references of which a random part is hidden, as the mask will hide them."""
WORN_SHARE = 0.5
"""Share of references under a look of their own: plain drawings alone are soon known by heart."""
MATRIX_DECAY = 0.1
"""Weight decay of the blocks' matrices."""
LIKED = 5
"""Most pictures whose style is told."""


@dataclass(frozen=True)
class Translation:
    """A batch: int64 [B, places] codes, -1 where there is none, and mean style vectors [B, S, code_width]."""

    references: Tensor
    answers: Tensor
    styles: Tensor


class TranslationSampler:
    """Draws references and right answers of train cells from encoded looks."""

    def __init__(self, sequences: SequenceSampler) -> None:
        self.sequences, self.first = sequences, sequences.spec.tokenizer.style_tokens
        self.records = [
            record
            for members in sequences.by_meaning.values()
            for record in members
            if any(other.family != record.family for other in members)
        ]
        self.worn: dict[int, list[NDArray[np.int16]]] = {}
        self.still: dict[str, list[EncodedLook]] = {}
        self.moving: dict[int, list[tuple[EncodedLook, int]]] = {}
        for look in sequences.looks:
            for number, codes in zip(look.records, look.codes, strict=True):
                self.worn.setdefault(number, []).append(codes)
            if geometry_of(look.look) == PLAIN:
                self.still.setdefault(look.set, []).append(look)
                continue
            for row, number in enumerate(look.records):
                self.moving.setdefault(number, []).append((look, row))

    def draw(self, rng: random.Random, count: int) -> Translation:
        """A batch of ``count``."""
        return self.stack([self._draw_one(rng) for _ in range(count)])

    def _draw_one(self, rng: random.Random) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.float32]]:
        record, plain = rng.choice(self.records), self.sequences.plain
        moving = self.moving.get(record.id, ())
        if moving and rng.random() < MOVED_SHARE:
            look, row = rng.choice(moving)
            answer = look.shapes[row]
        else:
            look, answer = rng.choice(self.still[record.set]), plain[record.id]
        liked = [row for row in rng.sample(range(len(look.records)), LIKED + 1) if look.records[row] != record.id]
        history = [look.codes[row] for row in liked[: rng.randint(1, LIKED)]]
        asking = self.sequences.asking(record, rng).id
        reference = rng.choice(self.worn[asking]) if rng.random() < WORN_SHARE else plain[asking]
        return reference, answer, mean_style(history, self.sequences.codebook, self.first)

    def requests(self, requests: Sequence[CodedRequest]) -> Translation:
        """Requests as they are; the answers are what the language model is to say."""
        tokens, codebook = self.sequences.spec.tokenizer.tokens, self.sequences.codebook
        rows = []
        for one in requests:
            style = mean_style(one.history, codebook, self.first)
            rows.append((padded(one.reference, tokens), padded(one.answer, tokens), style))
        return self.stack(rows)

    def stack(self, rows: Sequence[tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.float32]]]) -> Translation:
        """Rows of packed codes of reference and answer, style tokens first, and mean style vectors."""
        references, answers, styles = (np.stack(column) for column in zip(*rows, strict=True))
        first = self.first
        asked, wanted = (torch.from_numpy(part[:, first:].astype(np.int64)) for part in (references, answers))
        return Translation(asked, wanted, torch.from_numpy(styles))


class TranslatorTask(TrainingTask):
    """Cross-entropy of every place's code at once, given the reference's codes and the style of liked pictures."""

    name = "translator"

    def __init__(
        self,
        folder: ModelFolder,
        tokenizer: VisualTokenizer,
        sequences: SequenceSampler,
        held_out: list[CodedRequest],
        sheet: RequestSheet,
        batch: int,
    ) -> None:
        if folder.spec.translator is None:
            raise UsageError(f"{folder.path} has no translator", "describe one in its config.json")
        self.folder, self.batch, self.held_out, self.sheet = folder, batch, held_out, sheet
        self.sampler, self.quantizer = TranslationSampler(sequences), tokenizer.quantizer
        weight = tokenizer.quantizer.embedding.weight.detach()
        self.device, codebook = weight.device, weight[: folder.spec.tokenizer.patch_codes]
        self.translator = Translator(folder.spec.translator).to(self.device)
        self.head = CodeHead(codebook, folder.spec.translator.width).to(self.device)
        self.near = NearCodes(nearest_codes(codebook), first_code=0)
        self.modules = {"translator": self.translator, "head": self.head}

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        batch = self.sampler.draw(rng, self.batch)
        some = torch.rand(self.batch, 1) < HIDDEN_SHARE
        hidden = torch.rand(batch.references.shape) < some * torch.rand(self.batch, 1)
        soft, hard, right = self._losses(batch, ~hidden)
        return {"loss": soft, "nats": hard, "right": right}

    def _losses(self, batch: Translation, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Soft and hard cross-entropy a code, and the share of codes that are found."""
        answers, logits = batch.answers.to(self.device), self._logits(batch, keep)
        wanted = answers >= 0
        soft, hard = soft_cross_entropy(logits[wanted], answers[wanted], self.near)
        right = (logits.argmax(-1) == answers)[wanted].float().mean()
        return soft.mean(), hard.mean(), right

    def _logits(self, batch: Translation, keep: Tensor) -> Tensor:
        references = batch.references.to(self.device)
        kept = (keep.to(self.device) & (references >= 0)).float()
        vectors, styles = self.quantizer.lookup(references), batch.styles.to(self.device)
        # On a CPU the fused attention's backward takes 3 times longer than plain products over 64 places.
        with sdpa_kernel(SDPBackend.MATH):
            logits: Tensor = self.head(self.translator(vectors, kept, styles))
        return logits

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        requests = self.held_out
        foreign, wrong = misled(requests)
        figures: dict[str, float] = {}
        for name, part in (("", requests), ("_with_another_history", foreign), ("_with_another_reference", wrong)):
            batch = self.sampler.requests(part)
            _, hard, right = self._losses(batch, torch.ones_like(batch.references, dtype=torch.bool))
            figures |= {f"valid{name}": float(hard), f"right{name}": float(right)}
        self._draw_sheet(folder / f"sheet-{step + 1:06d}.png")
        return figures

    def _draw_sheet(self, path: Path) -> None:
        """The likeliest code of every place, in the style of the most typical liked picture."""
        asked, first = self.sheet.coded, self.sampler.first
        batch = self.sampler.requests(asked)
        codes = self._logits(batch, torch.ones_like(batch.references, dtype=torch.bool)).argmax(-1).tolist()
        codebook = self.sampler.sequences.codebook
        styles = [one.history[most_typical(one.history, codebook, first)][:first] for one in asked]
        self.sheet.save(path, [(*style, *row) for style, row in zip(styles, codes, strict=True)])

    def export(self) -> None:
        save_shipped(self.folder, "translator", self.translator.state_dict())

    def parameter_groups(self, settings: LoopSettings) -> list[dict[str, Any]]:
        """Matrices of the blocks go to Muon: after the same minutes an eighth of a nat ahead of AdamW."""
        inner = [parameter for parameter in self.translator.blocks.parameters() if parameter.ndim == 2]
        outer = without(super().parameter_groups(settings), set(inner))
        return [*outer, {"params": inner, "weight_decay": MATRIX_DECAY, "muon": True}]
