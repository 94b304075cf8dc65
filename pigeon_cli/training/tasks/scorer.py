"""Stage ``scorer``: what an image shows and how it is drawn, from codes alone (RECIPE.md point 7)."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.scorer import Scorer
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.report.sheet import make_sheet
from pigeon_cli.training.data.dataset import IconRecord
from pigeon_cli.training.data.looks import PLAIN
from pigeon_cli.training.loop import TrainingTask
from pigeon_cli.training.losses import contrast, nearest_codes
from pigeon_cli.training.request_sheet import RequestSheet
from pigeon_cli.training.sequences import CodedRequest, SequenceSampler
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.weights.checkpoint import load_part
from pigeon_cli.weights.store import ModelFolder

WORN_SHARE = 0.25
"""Up to which share of a picture's codes are taken by near ones: what is scored was drawn, and drawings err."""
ANCHOR_TEMPERATURE = 0.07
ANCHOR_WEIGHT = 0.2
"""At 1, from nothing, right answers of valid requests were found half as often after as many pictures."""


class Anchors(nn.Module):
    """One vector per meaning and one per icon set, which the scorer is trained against and which are then left behind.

    A batch holds few of the 1,600 meanings; against anchors every picture is told from all of them at every step.
    """

    def __init__(self, meanings: int, sets: int, width: int) -> None:
        super().__init__()
        self.meanings = nn.Parameter(functional.normalize(torch.randn(meanings, width), dim=-1))
        self.sets = nn.Parameter(functional.normalize(torch.randn(sets, width), dim=-1))


class ScorerTask(TrainingTask):
    """Contrast between pictures of one meaning in two families, of one look in two meanings, and with words."""

    name = "scorer"

    def __init__(
        self,
        folder: ModelFolder,
        tokenizer: VisualTokenizer,
        sampler: SequenceSampler,
        held_out: list[CodedRequest],
        sheet: RequestSheet,
        batch: int,
    ) -> None:
        self.folder, self.tokenizer, self.sampler = folder, tokenizer, sampler
        self.held_out, self.sheet, self.batch = held_out, sheet, batch
        spec = folder.spec
        assert spec.scorer is not None
        self.device = tokenizer.quantizer.embedding.weight.device
        self.scorer = Scorer(spec.scorer).to(self.device)
        self.meanings = {meaning: place for place, meaning in enumerate(sorted(sampler.by_meaning))}
        self.sets = {name: place for place, name in enumerate(sorted(sampler.dataset.train_by_set))}
        self.anchors = Anchors(len(self.meanings), len(self.sets), spec.scorer.width).to(self.device)
        self.near = nearest_codes(tokenizer.quantizer.embedding.weight.detach())
        self.decoder = EmbeddingDecoder(spec.decoder).to(self.device)
        load_part(self.decoder, folder.part("decoder"))
        self.decoder.requires_grad_(False).eval()
        self.modules = {"scorer": self.scorer, "anchors": self.anchors}
        self._standardise()

    def _standardise(self) -> None:
        codes, _, _ = self._draw(random.Random(3), 256)
        contexts = self._contexts(codes).flatten(0, 1)
        self.scorer.feature_mean.copy_(contexts.mean(0))
        self.scorer.feature_deviation.copy_(contexts.std(0) + 1e-4)

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        codes, records, sets = self._draw(rng, self.batch)
        # On a CPU the fused attention's backward takes 3 times longer than plain products over 64 patches.
        with sdpa_kernel(SDPBackend.MATH):
            meanings, styles = (part.float() for part in self.scorer(self._contexts(self._worn(codes))))
        shown, _, asked = meanings.chunk(3)
        liked, other, _ = styles.chunk(3)
        words = self._words([self.sampler.words(record, rng) for record in records[: len(shown)]]).float()
        numbers = torch.tensor([self.meanings[record.meaning] for record in records], device=self.device)
        meaning = contrast(shown, asked) + self._anchored(meanings, self.anchors.meanings, numbers)
        style = contrast(liked, other) + self._anchored(liked, self.anchors.sets, sets)
        named = contrast(shown, words) + self._anchored(words, self.anchors.meanings, numbers[: len(shown)])
        return {"loss": style + meaning + named, "style": style, "meaning": meaning, "words": named}

    def _anchored(self, vectors: Tensor, anchors: Tensor, numbers: Tensor) -> Tensor:
        """Weighted cross-entropy of unit vectors [B, W] with the anchors [N, W] that ``numbers`` int64 [B] name."""
        cosines = vectors @ functional.normalize(anchors, dim=-1).T
        return ANCHOR_WEIGHT * functional.cross_entropy(cosines / ANCHOR_TEMPERATURE, numbers)

    def _draw(self, rng: random.Random, count: int) -> tuple[Tensor, list[IconRecord], Tensor]:
        """Codes int64 [3 n, patches] of n pictures, of others under the same looks and of references for the first;
        what each shows; sets int64 [n] of the first. n is at most ``count``.
        """
        sampler = self.sampler
        looks = rng.sample(sampler.looks, min(count, len(sampler.looks)))
        shown: list[tuple[np.ndarray, IconRecord]] = []
        others: list[tuple[np.ndarray, IconRecord]] = []
        references: list[tuple[np.ndarray, IconRecord]] = []
        for look in looks:
            while True:
                one, two = (
                    (look.codes[place], sampler.dataset.records[look.records[place]])
                    for place in rng.sample(range(len(look.records)), 2)
                )
                reference = sampler.reference(one[1], rng)
                if reference is not None:
                    break
            shown.append(one)
            others.append(two)
            references.append((reference, one[1]))
        codes, records = zip(*shown, *others, *references, strict=True)
        packed = torch.from_numpy(np.stack(codes).astype(np.int64)).to(self.device)
        return packed, list(records), torch.tensor([self.sets[look.set] for look in looks], device=self.device)

    def _worn(self, codes: Tensor) -> Tensor:
        """``codes`` with a random share of each row's replaced by near ones."""
        rates = torch.rand(len(codes), 1, device=self.device) * WORN_SHARE
        swapped = (torch.rand(codes.shape, device=self.device) < rates) & (codes >= 0)
        column = torch.randint(self.near.shape[1], codes.shape, device=self.device)
        return torch.where(swapped, self.near[codes.clamp(min=0), column], codes)

    @torch.no_grad()
    def _contexts(self, packed: Tensor) -> Tensor:
        """The decoder's contexts of packed codes int64 [B, tokens], -1 as padding."""
        context: Tensor = self.decoder(self.tokenizer.quantizer.lookup(packed), packed >= 0).context.float()
        return context

    def _words(self, words: list[str]) -> Tensor:
        rows = [self.sampler.text.encode(each) for each in words]
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=self.device)
        mask = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows], device=self.device)
        return self.scorer.words(ids, mask)

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        self._draw_sheet(folder / f"sheet-{step + 1:06d}.png")
        return {
            name: float((square.argmax(1) == torch.arange(len(square), device=square.device)).float().mean())
            for name, square in zip(("history_hit", "reference_hit", "words_hit"), self._cosines(), strict=True)
        }

    def _draw_sheet(self, path: Path) -> None:
        """Per request its reference, the three right answers of all requests nearest in meaning, and its own."""
        sheet = self.sheet
        answers = self._vectors([one.target for one in sheet.coded])[0]
        asked = self._vectors([one.reference for one in sheet.coded])[0]
        nearest = (asked @ answers.T).argsort(1, descending=True)[:, :3]
        targets = [sheet.picture(one.target, one.look) for one in sheet.requests]
        rows = [
            [sheet.picture(one.reference, PLAIN), *[targets[place] for place in found], targets[row]]
            for row, (one, found) in enumerate(zip(sheet.requests, nearest.tolist(), strict=True))
        ]
        make_sheet(rows, headers=["reference", "nearest", "", "", "right answer"]).save(path)

    def _cosines(self) -> list[Tensor]:
        """[n, n] each, of valid requests with all their right answers, as generation scores them: histories in style,
        references in meaning, and words (of the requests that have any).
        """
        requests = self.held_out
        meanings, styles = self._vectors([one.target for one in requests])
        histories = [self._vectors(list(one.history))[1].mean(0) for one in requests]
        references = self._vectors([one.reference for one in requests])[0]
        named = [place for place, one in enumerate(requests) if one.words]
        words = self._words([requests[place].words for place in named]).float()
        return [torch.stack(histories) @ styles.T, references @ meanings.T, words @ meanings[named].T]

    def _vectors(self, rows: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Unit vectors of meaning and of style of codes without padding."""
        width = self.folder.spec.tokenizer.tokens
        packed = torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows], device=self.device)
        meanings, styles = self.scorer(self._contexts(packed))
        return meanings.float(), styles.float()

    @torch.no_grad()
    def export(self) -> None:
        """Write the weights with the standard constants of right answers against valid requests.

        On train pictures, which were learned by heart, cosines are higher and closer together than on any drawing.
        """
        right = [square.diagonal() for square in self._cosines()]
        self.scorer.standard_mean.copy_(torch.stack([values.mean() for values in right]))
        self.scorer.standard_deviation.copy_(torch.stack([values.std() for values in right]))
        save_shipped(self.folder, "scorer", self.scorer.state_dict())
