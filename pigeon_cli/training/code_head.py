"""Codes of what the translator makes of a reference: the head that it is trained with, and drawing codes with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.models.quantizer import Quantizer
from pigeon_cli.models.translator import Translator
from pigeon_cli.pipeline.reference import favoured_codes
from pigeon_cli.training.frozen_reader import frozen
from pigeon_cli.training.loop import load_from_run
from pigeon_cli.weights.store import ModelFolder


class CodeHead(nn.Module):
    """Places to logits of patch codes; no part of the model, whose language model draws the codes."""

    def __init__(self, codebook: Tensor, width: int) -> None:
        super().__init__()
        self.codebook: Tensor
        self.register_buffer("codebook", codebook.float(), persistent=False)
        self.turn = nn.Linear(width, width)
        self.shared = nn.Linear(codebook.shape[1], width, bias=False)
        self.residual = nn.Parameter(torch.randn(len(codebook), width) * 0.02)
        self.bias = nn.Parameter(torch.zeros(len(codebook)))

    def forward(self, rows: Tensor) -> Tensor:
        """[..., width] to [..., codes]."""
        table = self.shared(self.codebook) + self.residual.to(rows.dtype)
        logits: Tensor = self.turn(rows) @ table.T * (2 * rows.shape[-1] ** -0.5) + self.bias.to(rows.dtype)
        return logits


@dataclass(frozen=True)
class CodeTranslation:
    """A trained translator and its head, both frozen."""

    spec: ModelSpec
    quantizer: Quantizer
    translator: Translator
    head: CodeHead

    def likeliest(self, codes: Tensor, keep: Tensor, style: Tensor) -> Tensor:
        """Patch codes int64 [B, places] of what the places ``codes`` (-1: none), of which ``keep`` [B, places] are 1,
        become in a ``style`` [B, style tokens, code_width]; their own codes are favoured as in generation."""
        return self._scores(codes, keep, style, torch.ones(len(codes), 1, device=codes.device)).argmax(-1)

    def draw(self, codes: Tensor, keep: Tensor, style: Tensor, temperature: Tensor, faithful: Tensor) -> Tensor:
        """The same, drawn at ``temperature`` [B, 1, 1]; own codes are favoured in the rows ``faithful`` [B, 1]."""
        scores = self._scores(codes, keep, style, faithful) / temperature
        chance = torch.rand_like(scores).clamp(1e-6, 1 - 1e-6)
        return (scores - (-chance.log()).log()).argmax(-1)

    @torch.no_grad()
    def _scores(self, codes: Tensor, keep: Tensor, style: Tensor, faithful: Tensor) -> Tensor:
        vectors, kept = self.quantizer.lookup(codes), keep * (codes >= 0)
        strength = self.spec.sampling.fidelity * kept * faithful
        logits: Tensor = self.head(self.translator(vectors, kept, style))
        return logits.float() + favoured_codes(vectors, strength, self.quantizer, self.spec)


def load_translation(
    folder: ModelFolder, quantizer: Quantizer, checkpoint: Path, device: torch.device
) -> CodeTranslation | None:
    """The folder's translator with the head in the ``checkpoint`` of its run; ``None`` where one of the two is missing.

    Raises :class:`InputError` for a checkpoint that holds no such head.
    """
    spec = folder.spec
    if spec.translator is None or not folder.part("translator").is_file() or not checkpoint.is_file():
        return None
    translator = frozen(Translator(spec.translator), folder, "translator", device)
    codebook = quantizer.embedding.weight.detach()[: spec.tokenizer.patch_codes]
    head = CodeHead(codebook, spec.translator.width).to(device)
    load_from_run(head, checkpoint, "head", "head of this translator", "pigeon train translator")
    return CodeTranslation(spec, quantizer, translator, head.requires_grad_(False).eval())
