"""Packed sequences for pretraining the language model: several pictures of one look, most of them asked for.

One sequence holds the pictures of one user. Each picture may be preceded by its words and by the slots of a
reference, so that one sequence asks several times for "this meaning in the look so far" instead of once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray
from torch import Tensor

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.vocabulary import Vocabulary
from pigeon_cli.pipeline.prompt import IGNORED, REFERENCE_SLOT
from pigeon_cli.training.code_cache import EncodedLook
from pigeon_cli.training.data.dataset import IconDataset, IconRecord
from pigeon_cli.training.data.looks import PLAIN

COPY_SHARE = 0.3
"""Share of easy references that are the picture itself; the others are plain drawings of its family."""

FREE_WEIGHT = 0.4
"""Weight of the codes of a picture that nothing asks for: they teach the look and little else."""


@dataclass
class SequenceBatch:
    """Right-padded sequences; ids and labels int64 [B, L], weights float [B, L], references int64 [R, patches]."""

    ids: Tensor
    labels: Tensor
    weights: Tensor
    references: Tensor
    """Packed codes of the references in order of appearance (row by row), -1 as padding."""


@dataclass(frozen=True)
class CodedRequest:
    """Codes of one request, without padding; ``planted`` numbers the history images that are not of the taste."""

    history: tuple[tuple[int, ...], ...]
    planted: tuple[int, ...]
    reference: tuple[int, ...]
    words: str
    target: tuple[int, ...]
    is_self: bool = False


@dataclass(frozen=True)
class _Ask:
    """What stands before a picture."""

    words: bool
    reference: bool


@dataclass
class _Row:
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, ids: Sequence[int], weight: float = 0.0) -> None:
        self.ids += ids
        self.labels += ids if weight else [IGNORED] * len(ids)
        self.weights += [weight] * len(ids)


class SequenceSampler:
    """Draws packed sequences from a code cache; train cells only, as the cache holds no others."""

    def __init__(
        self,
        spec: ModelSpec,
        dataset: IconDataset,
        looks: list[EncodedLook],
        text: sentencepiece.SentencePieceProcessor,
    ) -> None:
        self.spec, self.dataset, self.text = spec, dataset, text
        self.looks = looks
        self.plain: dict[int, NDArray[np.int16]] = {}
        self.by_meaning: dict[str, list[IconRecord]] = {}
        for look in looks:
            if look.look == PLAIN:
                for number, codes in zip(look.records, look.codes, strict=True):
                    self.plain[number] = codes
                    record = dataset.records[number]
                    self.by_meaning.setdefault(record.meaning, []).append(record)

    def batch(self, rng: random.Random, count: int, easy: float = 0.0, pictures: int = 3) -> SequenceBatch:
        """``count`` sequences of ``pictures`` pictures each, or about as many tokens in longer or shorter sequences.

        ``easy`` is the share of references that are not of another family, see :meth:`_easy_reference`. Generation
        reads longer prompts than ``pictures`` make, and positions that were never trained cost it a fifth of a nat;
        but long sequences cost time, so they are a quarter of the batches. What stands before the n-th picture is the
        same in all sequences, so that hardly anything is padding.
        """
        length = rng.choice([pictures - 1, pictures, pictures, 2 * pictures])
        count = max(1, round(count * pictures / length))
        asks = [self._draw_ask(rng, first=index == 0) for index in range(length)]
        rows: list[_Row] = []
        references: list[NDArray[np.int16]] = []
        for _ in range(count):
            row = _Row()
            look = rng.choice(self.looks)
            places = iter(rng.sample(range(len(look.records)), len(look.records)))
            for ask in asks:
                while not self._add_picture(row, references, look, next(places), ask, easy, rng):
                    pass
            rows.append(row)
        return self._stack(rows, references)

    def _draw_ask(self, rng: random.Random, first: bool) -> _Ask:
        if rng.random() > (0.3 if first else 0.9):
            return _Ask(False, False)
        kind = rng.random()
        return _Ask(words=kind < 0.6, reference=kind > 0.1)

    def _add_picture(
        self,
        row: _Row,
        references: list[NDArray[np.int16]],
        look: EncodedLook,
        place: int,
        ask: _Ask,
        easy: float,
        rng: random.Random,
    ) -> bool:
        """Add a picture and what asks for it; false where it has no reference although one is asked for."""
        record, codes = self.dataset.records[look.records[place]], look.codes[place]
        if ask.reference:
            is_easy = rng.random() < easy
            reference = self._easy_reference(record, codes, rng) if is_easy else self.reference(record, rng)
            if reference is None:
                return False
            references.append(reference)
        if ask.words:
            row.add(self.text.encode(self.words(record, rng)))
        if ask.reference:
            row.add([REFERENCE_SLOT] * self.spec.reference_slots)
        vocabulary = self.spec.vocabulary
        row.add([vocabulary.image_start])
        weight = 1.0 if ask.words or ask.reference else FREE_WEIGHT
        row.add([*vocabulary_ids(vocabulary, codes[codes >= 0].tolist()), vocabulary.image_end], weight)
        return True

    def _easy_reference(
        self, record: IconRecord, codes: NDArray[np.int16], rng: random.Random
    ) -> NDArray[np.int16] | None:
        """The picture itself, or the same drawing without its look, perhaps in another finish of its family.

        Steps between which a model finds the way: to copy what the reference has, then to carry a look and a finish
        over to a drawing, then to draw what another family of sets draws otherwise. The last alone is found late.
        """
        return codes if rng.random() < COPY_SHARE else self._plain(record, rng, same_family=True)

    def requests(self, requests: Sequence[CodedRequest]) -> SequenceBatch:
        """Requests in the form that generation reads; only the targets are predicted."""
        vocabulary = self.spec.vocabulary
        rows = []
        for request in requests:
            row = _Row()
            for image in request.history:
                row.add([vocabulary.image_start, *vocabulary_ids(vocabulary, image), vocabulary.image_end])
            row.add(self.text.encode(request.words))
            row.add([REFERENCE_SLOT] * self.spec.reference_slots)
            row.add([vocabulary.image_start])
            row.add([*vocabulary_ids(vocabulary, request.target), vocabulary.image_end], 1.0)
            rows.append(row)
        patches = self.spec.tokenizer.patches
        padded = [[*one.reference, *[-1] * (patches - len(one.reference))] for one in requests]
        return self._stack(rows, list(np.array(padded, dtype=np.int16)))

    def words(self, record: IconRecord, rng: random.Random) -> str:
        """Words of a meaning: its label, sometimes with tags or a tag alone, as people type."""
        choice = rng.random()
        if record.tags and choice < 0.15:
            return rng.choice(record.tags)
        if record.tags and choice < 0.3:
            return f"{record.label} {rng.choice(record.tags)}"
        return record.label

    def reference(self, record: IconRecord, rng: random.Random) -> NDArray[np.int16] | None:
        """Codes of the same meaning, plain, in a random set of another family; ``None`` when train has none."""
        return self._plain(record, rng, same_family=False)

    def _plain(self, record: IconRecord, rng: random.Random, same_family: bool) -> NDArray[np.int16] | None:
        drawings = [
            other for other in self.by_meaning[record.meaning] if (other.family == record.family) == same_family
        ]
        return self.plain[rng.choice(drawings).id] if drawings else None

    def _stack(self, rows: list[_Row], references: list[NDArray[np.int16]]) -> SequenceBatch:
        length = max(len(row.ids) for row in rows)

        def pad(values: Sequence[float], filler: float) -> list[float]:
            return [*values, *[filler] * (length - len(values))]

        empty = np.zeros((0, self.spec.tokenizer.patches), dtype=np.int16)
        stacked = np.stack(references) if references else empty
        return SequenceBatch(
            ids=torch.tensor([pad(row.ids, self.spec.vocabulary.pad) for row in rows], dtype=torch.int64),
            labels=torch.tensor([pad(row.labels, IGNORED) for row in rows], dtype=torch.int64),
            weights=torch.tensor([pad(row.weights, 0.0) for row in rows]),
            references=torch.from_numpy(stacked.astype(np.int64)),
        )


def vocabulary_ids(vocabulary: Vocabulary, codes: Sequence[int]) -> list[int]:
    """Token ids of codes."""
    return [code + vocabulary.first_code for code in codes]
