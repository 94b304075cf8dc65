"""Stage ``language``: LLaMA from nothing on codes, words and reference slots (RECIPE.md point 6)."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.models.adapter import Adapter
from pigeon_cli.models.language import build_language_model
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.pipeline.positions import token_positions
from pigeon_cli.pipeline.prompt import IGNORED, REFERENCE_SLOT
from pigeon_cli.pipeline.reference import SeenReference, echo_reference, embed_request
from pigeon_cli.training.attention import explicit_attention
from pigeon_cli.training.frozen_reader import frozen_reader
from pigeon_cli.training.loop import TrainingTask
from pigeon_cli.training.losses import NearCodes, nearest_codes, soft_cross_entropy
from pigeon_cli.training.request_sheet import RequestSheet, imagine_codes
from pigeon_cli.training.sequences import CodedRequest, SequenceBatch, SequenceSampler, misled
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.weights.checkpoint import load_part
from pigeon_cli.weights.store import ModelFolder
from pigeon_cli.weights.tied import load_language

LOST_ROWS, LOST_SHARE = 0.5, 0.3
"""Share of sequences in which codes are lost on their way in, and up to which share of them: the mask will drop history
tokens. The same share of the pictures that are asked for loses up to all of its codes: given the code before, history
and reference together say little about the next (0.08 nats), and a model that is always given it hardly reads them."""
HIDDEN_SHARE = 0.25
"""Share of references of which a random part is hidden, so that every dial position is known before stage 1."""


class CodeTable(nn.Module):
    """Embedding rows of all ids: free rows for text and markers; codes share a map of their codebook vectors.

    The map carries what near codes have in common; a residual per code, from zero, the rest.
    """

    def __init__(self, spec: ModelSpec, codebook: Tensor) -> None:
        super().__init__()
        width = spec.language.hidden_size
        self.codebook: Tensor
        self.register_buffer("codebook", functional.normalize(codebook, dim=-1), persistent=False)
        self.text = nn.Parameter(torch.randn(spec.vocabulary.first_code, width) * 0.02)
        self.shared = nn.Parameter(torch.randn(codebook.shape[1], width) * 0.08)
        self.residual = nn.Parameter(torch.zeros(len(codebook), width))

    def forward(self) -> Tensor:
        """The table [vocabulary size, width]."""
        return torch.cat([self.text, self.codebook @ self.shared + self.residual])

    @torch.no_grad()
    def begin(self, table: Tensor) -> None:
        """Start so that :meth:`forward` gives ``table`` (weights of an earlier run)."""
        self.text.copy_(table[: len(self.text)])
        self.residual.copy_(table[len(self.text) :] - self.codebook @ self.shared)


class LanguageTask(TrainingTask):
    """Next-code prediction on packed sequences; soft targets over near codes; the adapter learns along."""

    name = "language"

    def __init__(
        self,
        folder: ModelFolder,
        tokenizer: VisualTokenizer,
        sampler: SequenceSampler,
        held_out: list[CodedRequest],
        sheet: RequestSheet,
        batch: int,
    ) -> None:
        self.folder, self.tokenizer, self.sampler, self.batch = folder, tokenizer, sampler, batch
        self.held_out, self.sheet = held_out, sheet
        spec, device = folder.spec, tokenizer.quantizer.embedding.weight.device
        self.spec, self.device = spec, device
        self.language = build_language_model(spec.language, spec.vocabulary)
        nn.Module.to(self.language, device)
        self.table = CodeTable(spec, tokenizer.quantizer.embedding.weight.detach()).to(device)
        self.adapter = Adapter(spec.adapter).to(device)
        self.reader = frozen_reader(folder, tokenizer.quantizer, self.adapter, device)
        # The table replaces both the input embedding and the output layer, which are tied.
        self.language.model.embed_tokens.requires_grad_(False)
        # Only image ids are ever drawn, so only their logits are computed: column 0 is the image end, c + 1 the code c.
        self.near = NearCodes(nearest_codes(tokenizer.quantizer.embedding.weight.detach()), first_code=1)
        self.modules = {
            "language": self.language,
            "table": self.table,
            "adapter": self.adapter,
        }

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        return self._losses(self.sampler.batch(rng, self.batch), HIDDEN_SHARE, LOST_ROWS)

    def _losses(self, batch: SequenceBatch, hidden_share: float, lost_rows: float = 0.0) -> dict[str, Tensor]:
        table = self.table()
        ids, labels = batch.ids.to(self.device), batch.labels.to(self.device)
        embedded = functional.embedding(ids.clamp(min=0), table)
        weights = batch.weights.to(self.device)
        asked = weights > 0.9
        embedded = embedded * ~self._lost(ids, asked, lost_rows).unsqueeze(-1)
        if len(batch.references):
            seen = self._see(batch, hidden_share)
            slots = (ids == REFERENCE_SLOT).unsqueeze(-1)
            embedded = embedded.masked_scatter(slots, seen.slots.flatten(0, 1).to(embedded.dtype))
            if seen.echo is not None:
                embedded = echo_reference(embedded, ids, seen.echo, self.spec.vocabulary)
        # A mask of ones: without one, positions that jump are taken for separate sequences.
        attention = torch.ones_like(ids)
        positions = token_positions(ids, attention, self.spec)
        with explicit_attention(self.language):
            hidden = self.language.model(
                inputs_embeds=embedded, attention_mask=attention, position_ids=positions, use_cache=False
            ).last_hidden_state
        wanted = labels[:, 1:]
        mask = wanted != IGNORED
        weights, asked = weights[:, 1:][mask], asked[:, 1:][mask]
        first = self.spec.vocabulary.image_end
        logits = hidden[:, :-1][mask] @ table[first:].to(hidden.dtype).T
        soft, hard = soft_cross_entropy(logits, wanted[mask] - first, self.near)
        return {
            "loss": (soft * weights).sum() / weights.sum(),
            "asked": (hard * asked).sum() / asked.sum().clamp_min(1),
            "free": (hard * ~asked).sum() / (~asked).sum().clamp_min(1),
        }

    def _lost(self, ids: Tensor, asked: Tensor, rows: float) -> Tensor:
        """Bool [B, L]: codes whose embeddings are zero, as those of dropped history tokens."""
        pictures = (ids == self.spec.vocabulary.image_start).cumsum(1)
        most = int(pictures.max()) + 1
        anywhere, own = (
            torch.rand(len(ids), count, device=ids.device) * (torch.rand(len(ids), count, device=ids.device) < rows)
            for count in (1, most)
        )
        rates = torch.maximum(anywhere * LOST_SHARE, own.gather(1, pictures) * asked)
        return (torch.rand(ids.shape, device=ids.device) < rates) & (ids >= self.spec.vocabulary.first_code)

    def _see(self, batch: SequenceBatch, hidden_share: float) -> SeenReference:
        """The references of ``batch``, of some of which a random part is hidden."""
        references, styles = batch.references.to(self.device), batch.styles.to(self.device)
        mask = references >= 0
        hide = torch.rand(len(references), 1, device=references.device)
        some = torch.rand(len(references), 1, device=references.device) < hidden_share
        order = torch.rand(references.shape, device=references.device)
        # At least one token stays: the one that the random order puts first.
        first = order.masked_fill(~mask, 2.0).argmin(1, keepdim=True)
        keep = mask & ~(some & (order < hide))
        keep = keep.scatter(1, first, True)
        return self.reader.see(references, keep, keep.float(), styles)

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        torch.manual_seed(0)
        own, swapped, mistaken = 0.0, 0.0, 0.0
        parts = [self.held_out[start : start + 16] for start in range(0, len(self.held_out), 16)]
        for part in parts:
            foreign, wrong = misled(part)
            own += float(self._losses(self.sampler.requests(part), 0.0)["asked"]) / len(parts)
            swapped += float(self._losses(self.sampler.requests(foreign), 0.0)["asked"]) / len(parts)
            mistaken += float(self._losses(self.sampler.requests(wrong), 0.0)["asked"]) / len(parts)
        self._draw_sheet(folder / f"sheet-{step + 1:06d}.png")
        return {"valid": own, "valid_with_another_history": swapped, "valid_with_another_reference": mistaken}

    def _draw_sheet(self, path: Path) -> None:
        """Prompts without their answers, padded on the left, as generation reads them."""
        batch = self.sampler.requests(self.sheet.coded)
        asked = [int((row != IGNORED).nonzero()[0]) for row in batch.labels]
        width = max(asked)
        ids = torch.full((len(asked), width), self.spec.vocabulary.pad)
        for row, length in enumerate(asked):
            ids[row, width - length :] = batch.ids[row, :length]
        ids = ids.to(self.device)
        attention = torch.tensor([[column >= width - length for column in range(width)] for length in asked]).long()
        table = self.table()
        self.language.model.embed_tokens.weight.copy_(table)
        seen = self._see(batch, 0.0)
        read = embed_request(self.language.model.embed_tokens, ids, seen, self.spec)
        self.sheet.save(path, imagine_codes(self.language, self.folder, read, ids, attention.to(self.device)))

    def export(self) -> None:
        with torch.no_grad():
            table = self.table().detach()
        state = {name: tensor for name, tensor in self.language.state_dict().items() if name != "lm_head.weight"}
        save_shipped(self.folder, "language", state | {"model.embed_tokens.weight": table})
        save_shipped(self.folder, "base_adapter", self.adapter.state_dict())

    def start_from(self, folder: ModelFolder) -> None:
        load_language(self.language, folder.part("language"))
        self.table.begin(self.language.model.embed_tokens.weight)
        load_part(self.adapter, folder.part("base_adapter"))
