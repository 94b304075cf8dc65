"""Packed sequences for pretraining the language model: several pictures of one look, most of them asked for.

One sequence holds the pictures of one user. Each picture may be preceded by its words and by the slots of a
reference, so that one sequence asks several times for "this meaning in the look so far" instead of once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray
from torch import Tensor

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.vocabulary import Vocabulary
from pigeon_cli.pipeline.prompt import IGNORED, REFERENCE_SLOT
from pigeon_cli.training.code_cache import EncodedLook, plain_codes
from pigeon_cli.training.data.alike import alike_drawings
from pigeon_cli.training.data.dataset import IconDataset, IconRecord

FREE_WEIGHT = 0.4
"""Weight of the codes of a picture that nothing asks for: they teach the look and little else."""
ALIKE_SHARE = 0.7
"""Share of references, where there are any, with the lines of the answer: what is to be learned of a reference is to
keep what it shows and to draw it another way. How a set draws what another draws quite differently can only be known
by heart."""
OWN_SHARE = 0.1
"""Share of references of the answer's own family, the answer's own drawing among them: where the reference is in the
taste already, it stays as it is."""


@dataclass
class SequenceBatch:
    """Right-padded sequences; ids and labels int64 [B, L], weights float [B, L], references int64 [R, tokens]."""

    ids: Tensor
    labels: Tensor
    weights: Tensor
    references: Tensor
    """Packed codes of the references in order of appearance (row by row), -1 as padding."""
    styles: Tensor
    """Float [R, style tokens, code_width]: :func:`mean_style` of what each reference's answer is to look like."""


@dataclass(frozen=True)
class CodedRequest:
    """Codes of one request, without padding; ``planted`` numbers the history images that are not of the taste."""

    history: tuple[tuple[int, ...], ...]
    planted: tuple[int, ...]
    words: str
    reference: tuple[int, ...]
    target: tuple[int, ...]
    """The right answer."""
    answer: tuple[int, ...]
    """What the language model is to say: :func:`answer_codes`."""
    is_self: bool = False


def misled(requests: Sequence[CodedRequest]) -> tuple[list[CodedRequest], list[CodedRequest]]:
    """Each request with the history, and each with the reference, of the next one: what the two are worth."""
    pairs = list(zip(requests, [*requests[1:], requests[0]], strict=True))
    return (
        [replace(one, history=other.history) for one, other in pairs],
        [replace(one, reference=other.reference) for one, other in pairs],
    )


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


@dataclass(frozen=True)
class _Reference:
    """Packed codes [tokens] of a reference, and the mean style of what its answer is to look like."""

    codes: NDArray[np.int16]
    style: NDArray[np.float32]


class SequenceSampler:
    """Draws packed sequences from a code cache; train cells only, as the cache holds no others."""

    def __init__(
        self,
        spec: ModelSpec,
        dataset: IconDataset,
        looks: list[EncodedLook],
        text: sentencepiece.SentencePieceProcessor,
        codebook: NDArray[np.float32],
    ) -> None:
        self.spec, self.dataset, self.text, self.codebook = spec, dataset, text, codebook
        self.looks = looks
        self.plain = plain_codes(looks)
        self.by_meaning: dict[str, list[IconRecord]] = {}
        for number in self.plain:
            record = dataset.records[number]
            self.by_meaning.setdefault(record.meaning, []).append(record)

    @cached_property
    def alike(self) -> dict[int, list[IconRecord]]:
        """By id, plain drawings of the same meaning with the same lines."""
        records = [record for members in self.by_meaning.values() for record in members]
        return alike_drawings(self.dataset, records)

    def batch(self, rng: random.Random, count: int, pictures: int = 3) -> SequenceBatch:
        """``count`` sequences of ``pictures`` pictures each, or about as many tokens in longer or shorter sequences.

        A picture that is asked for is :func:`answer_codes`. Generation reads longer prompts than
        ``pictures`` make, and positions that were never trained cost it a fifth of a nat; but long sequences cost time,
        so they are a quarter of the batches. What stands before the n-th picture is the same in all sequences, so that
        hardly anything is padding.
        """
        length = rng.choice([pictures - 1, pictures, pictures, 2 * pictures])
        count = max(1, round(count * pictures / length))
        asks = [self._draw_ask(rng, first=index == 0) for index in range(length)]
        rows: list[_Row] = []
        references: list[_Reference] = []
        for _ in range(count):
            row = _Row()
            shown: list[NDArray[np.int16]] = []
            look = rng.choice(self.looks)
            places = iter(rng.sample(range(len(look.records)), len(look.records)))
            for ask in asks:
                shown.append(self._add_picture(row, references, look, next(places), ask, shown, rng))
            rows.append(row)
        return self._stack(rows, references)

    def _draw_ask(self, rng: random.Random, first: bool) -> _Ask:
        if rng.random() > (0.4 if first else 0.9):
            return _Ask(False, False)
        kind = rng.random()
        # Words before everything else are how a reference is imagined, so they are often all there is.
        return _Ask(words=kind < 0.6, reference=kind > (0.35 if first else 0.1))

    def _add_picture(
        self,
        row: _Row,
        references: list[_Reference],
        look: EncodedLook,
        place: int,
        ask: _Ask,
        shown: Sequence[NDArray[np.int16]],
        rng: random.Random,
    ) -> NDArray[np.int16]:
        """Add a picture, after those that are ``shown``, and what asks for it; returns its codes."""
        record, codes = self.dataset.records[look.records[place]], look.codes[place]
        if ask.words:
            row.add(self.text.encode(self.words(record, rng)))
        if ask.reference:
            style = mean_style(shown or [codes], self.codebook, self.spec.tokenizer.style_tokens)
            references.append(_Reference(self.plain[self.asking(record, rng).id], style))
            row.add([REFERENCE_SLOT] * self.spec.reference_slots)
        if ask.words or ask.reference:
            codes = self.answer(look, place, shown)
        vocabulary = self.spec.vocabulary
        row.add([vocabulary.image_start])
        weight = 1.0 if ask.words or ask.reference else FREE_WEIGHT
        row.add([*vocabulary_ids(vocabulary, codes[codes >= 0].tolist()), vocabulary.image_end], weight)
        return codes

    def answer(
        self, look: EncodedLook, place: int, history: Sequence[Sequence[int] | NDArray[np.int16]]
    ) -> NDArray[np.int16]:
        """What is drawn when a picture is asked for: :func:`answer_codes`."""
        style = self.spec.tokenizer.style_tokens
        return answer_codes(look.codes[place], look.shapes[place], history, self.codebook, style)

    def asking(self, record: IconRecord, rng: random.Random) -> IconRecord:
        """Whose drawing asks for ``record``: one with its lines, another family's, or its own where train has no other
        or by chance.
        """
        alike = self.alike.get(record.id)
        if alike and rng.random() < ALIKE_SHARE:
            return rng.choice(alike)
        members = self.by_meaning[record.meaning]
        own = [other for other in members if other.family == record.family]
        foreign = [other for other in members if other.family != record.family]
        return rng.choice(own if rng.random() < OWN_SHARE or not foreign else foreign)

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
            row.add([*vocabulary_ids(vocabulary, request.answer), vocabulary.image_end], 1.0)
            rows.append(row)
        tokens, style = self.spec.tokenizer.tokens, self.spec.tokenizer.style_tokens
        asked = [
            _Reference(padded(one.reference, tokens), mean_style(one.history, self.codebook, style)) for one in requests
        ]
        return self._stack(rows, asked)

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
        others = [other for other in self.by_meaning[record.meaning] if other.family != record.family]
        return self.plain[rng.choice(others).id] if others else None

    def _stack(self, rows: list[_Row], references: list[_Reference]) -> SequenceBatch:
        length = max(len(row.ids) for row in rows)

        def pad(values: Sequence[float], filler: float) -> list[float]:
            return [*values, *[filler] * (length - len(values))]

        config = self.spec.tokenizer
        codes = np.zeros((len(references), config.tokens), dtype=np.int64)
        styles = np.zeros((len(references), config.style_tokens, self.codebook.shape[1]), dtype=np.float32)
        for row, reference in enumerate(references):
            codes[row], styles[row] = reference.codes, reference.style
        return SequenceBatch(
            ids=torch.tensor([pad(row.ids, self.spec.vocabulary.pad) for row in rows], dtype=torch.int64),
            labels=torch.tensor([pad(row.labels, IGNORED) for row in rows], dtype=torch.int64),
            weights=torch.tensor([pad(row.weights, 0.0) for row in rows]),
            references=torch.from_numpy(codes),
            styles=torch.from_numpy(styles),
        )


def vocabulary_ids(vocabulary: Vocabulary, codes: Sequence[int]) -> list[int]:
    """Token ids of codes."""
    return [code + vocabulary.first_code for code in codes]


def padded(codes: Sequence[int], tokens: int) -> NDArray[np.int16]:
    """Packed codes [tokens], -1 as padding."""
    return np.array([*codes, *[-1] * (tokens - len(codes))], dtype=np.int16)


def answer_codes(
    target: NDArray[np.int16],
    shape: NDArray[np.int16],
    history: Sequence[Sequence[int] | NDArray[np.int16]],
    codebook: NDArray[np.float32],
    style_tokens: int,
) -> NDArray[np.int16]:
    """What the language model is to say, packed int16 [tokens]: the places of the right answer's ``shape`` in plain
    colours, after the style tokens of the most typical picture of ``history``, or of the target where there is none.

    Colours and surface are said once, by the style tokens, and drawn by the image generator; what is left for the
    places is one of a few drawings of a meaning. Without style tokens the target itself is the answer.
    """
    if not style_tokens:
        return target
    typical = history[most_typical(history, codebook, style_tokens)] if len(history) else target
    style = np.asarray(typical[:style_tokens], dtype=np.int16)
    answer: NDArray[np.int16] = np.concatenate([style, shape[style_tokens:]])
    return answer


def mean_style(
    history: Sequence[Sequence[int] | NDArray[np.int16]], codebook: NDArray[np.float32], style_tokens: int
) -> NDArray[np.float32]:
    """Mean vectors [style_tokens, code_width] of the style tokens of all pictures of ``history``."""
    mean: NDArray[np.float32] = codebook[[np.asarray(codes[:style_tokens]) for codes in history]].mean(0)
    return mean


def most_typical(
    history: Sequence[Sequence[int] | NDArray[np.int16]], codebook: NDArray[np.float32], style_tokens: int
) -> int:
    """Which picture's style tokens agree best with those of all; of equals the last.

    Any picture of a look has a style that the answer may be drawn in; this one is right also where a stranger is among
    them.
    """
    vectors = np.stack([codebook[np.asarray(codes[:style_tokens])].ravel() for codes in history])
    agreement = vectors @ vectors.sum(0)
    return max(range(len(history)), key=lambda place: (round(float(agreement[place]), 4), place))
