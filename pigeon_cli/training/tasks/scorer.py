"""Stage ``scorer``: what an image shows and how it is drawn, from codes alone (RECIPE.md point 7)."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.scorer import Scorer
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.report.sheet import make_sheet
from pigeon_cli.training.data.dataset import IconRecord
from pigeon_cli.training.data.looks import PLAIN
from pigeon_cli.training.loop import TrainingTask
from pigeon_cli.training.losses import contrast
from pigeon_cli.training.request_sheet import RequestSheet
from pigeon_cli.training.sequences import SequenceSampler
from pigeon_cli.weights.checkpoint import load_part, save_part
from pigeon_cli.weights.store import ModelFolder


class ScorerTask(TrainingTask):
    """Contrast between pictures of one meaning in two families, of one look in two meanings, and with words."""

    name = "scorer"

    def __init__(
        self, folder: ModelFolder, tokenizer: VisualTokenizer, sampler: SequenceSampler, sheet: RequestSheet, batch: int
    ) -> None:
        self.folder, self.tokenizer, self.sampler = folder, tokenizer, sampler
        self.sheet, self.batch = sheet, batch
        spec = folder.spec
        assert spec.scorer is not None
        self.device = tokenizer.quantizer.embedding.weight.device
        self.scorer = Scorer(spec.scorer).to(self.device)
        self.decoder = EmbeddingDecoder(spec.decoder).to(self.device)
        load_part(self.decoder, folder.part("decoder"))
        self.decoder.requires_grad_(False).eval()
        self.modules = {"scorer": self.scorer}
        self._standardise()

    def _standardise(self) -> None:
        rng = random.Random(3)
        contexts = self._draw(rng, 256)[0].flatten(0, 1)
        self.scorer.feature_mean.copy_(contexts.mean(0))
        self.scorer.feature_deviation.copy_(contexts.std(0) + 1e-4)

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        contexts, words = self._draw(rng, self.batch)
        meanings, styles = (part.float().chunk(3) for part in self.scorer(contexts))
        style, meaning = contrast(styles[0], styles[1]), contrast(meanings[0], meanings[2])
        named = contrast(meanings[0], words.float())
        return {"loss": style + meaning + named, "style": style, "meaning": meaning, "words": named}

    def _draw(self, rng: random.Random, count: int) -> tuple[Tensor, Tensor]:
        """Contexts [3 n, Q, C] of pictures, of others under the same looks and of their references; vectors of words.

        n is at most ``count``.
        """
        sampler = self.sampler
        rows, others, references, records = [], [], [], []
        for look in rng.sample(sampler.looks, min(count, len(sampler.looks))):
            while True:
                one, two = rng.sample(range(len(look.records)), 2)
                record = sampler.dataset.records[look.records[one]]
                reference = sampler.reference(record, rng)
                if reference is not None:
                    break
            rows.append(look.codes[one])
            others.append(look.codes[two])
            references.append(reference)
            records.append(record)
        return self._contexts([*rows, *others, *references]), self._words(records, rng)

    @torch.no_grad()
    def _contexts(self, codes: list[np.ndarray]) -> Tensor:
        packed = torch.from_numpy(np.stack(codes).astype(np.int64)).to(self.device)
        vectors = self.tokenizer.quantizer.lookup(packed)
        context: Tensor = self.decoder(vectors, packed >= 0).context.float()
        return context

    def _words(self, records: list[IconRecord], rng: random.Random) -> Tensor:
        rows = [self.sampler.text.encode(self.sampler.words(record, rng)) for record in records]
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=self.device)
        mask = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows], device=self.device)
        return self.scorer.words(ids, mask)

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        cosines = self._cosines(*self._draw(random.Random(1), 256))
        self._draw_sheet(folder / f"sheet-{step + 1:06d}.png")
        return {
            name: float((square.argmax(1) == torch.arange(len(square), device=square.device)).float().mean())
            for name, square in zip(("style_hit", "meaning_hit", "words_hit"), cosines, strict=True)
        }

    def _draw_sheet(self, path: Path) -> None:
        """Per request its reference, the three right answers of all requests nearest in meaning, and its own."""
        sheet = self.sheet
        patches = self.folder.spec.tokenizer.patches

        def meaning(rows: list[tuple[int, ...]]) -> Tensor:
            packed = [np.array([*row, *[-1] * (patches - len(row))], dtype=np.int16) for row in rows]
            found: Tensor = self.scorer(self._contexts(packed))[0]
            return found

        answers = meaning([one.target for one in sheet.coded])
        nearest = (meaning([one.reference for one in sheet.coded]) @ answers.T).argsort(1, descending=True)[:, :3]
        targets = [sheet.picture(one.target, one.look) for one in sheet.requests]
        rows = [
            [sheet.picture(one.reference, PLAIN), *[targets[place] for place in found], targets[row]]
            for row, (one, found) in enumerate(zip(sheet.requests, nearest.tolist(), strict=True))
        ]
        make_sheet(rows, headers=["reference", "nearest", "", "", "right answer"]).save(path)

    def _cosines(self, contexts: Tensor, words: Tensor) -> list[Tensor]:
        """[n, n] each: style of pictures and others, meaning of pictures and references, of pictures and words."""
        meanings, styles = (part.float().chunk(3) for part in self.scorer(contexts))
        return [styles[0] @ styles[1].T, meanings[0] @ meanings[2].T, meanings[0] @ words.float().T]

    @torch.no_grad()
    def export(self) -> None:
        """Write the weights with the standard constants of right answers against train requests."""
        cosines = self._cosines(*self._draw(random.Random(2), 256))
        right = [square.diagonal() for square in cosines]
        self.scorer.standard_mean.copy_(torch.stack([values.mean() for values in right]))
        self.scorer.standard_deviation.copy_(torch.stack([values.std() for values in right]))
        save_part(self.folder.part("scorer"), self.scorer.state_dict())
