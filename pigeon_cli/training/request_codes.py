"""Requests as codes: what stage 1 reads, with the planted images known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray

from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.code_cache import EncodedLook, encode_pictures
from pigeon_cli.training.data.looks import PLAIN, apply_look, geometry_of
from pigeon_cli.training.data.requests import TrainingRequest
from pigeon_cli.training.sequences import CodedRequest, SequenceSampler, answer_codes

SELF_SHARES = {"self": 1.0, "paired": 0.0, "mixed": 0.15}
"""By ``--target``, the share of requests whose reference is the target itself, most of it hidden, as in the published
stage 1; the others have another drawing of the same meaning."""


class Sampler(Protocol):
    """Where stage 1 takes its requests from."""

    @property
    def text(self) -> sentencepiece.SentencePieceProcessor:
        """The model's text processor."""

    @property
    def has_strangers(self) -> bool:
        """Whether there is more than one taste: without strangers nothing can be planted."""

    def draw(self, rng: random.Random, planted_share: float = 0.4) -> CodedRequest:
        """A request; ``planted_share`` of them have strangers in the history, where there are any."""


class RequestSampler:
    """Draws stage-1 requests from the code cache: two to five liked images, two users in five with strangers among
    them."""

    def __init__(self, sequences: SequenceSampler, target: str = "mixed") -> None:
        self.sequences, self.self_share = sequences, SELF_SHARES[target]

    @property
    def text(self) -> sentencepiece.SentencePieceProcessor:
        return self.sequences.text

    @property
    def has_strangers(self) -> bool:
        return True

    def draw(self, rng: random.Random, planted_share: float = 0.4) -> CodedRequest:
        """One request of train cells and trained looks; ``planted_share`` of them have strangers in the history."""
        sequences = self.sequences
        has_strangers = rng.random() < planted_share
        # Strangers are fewer than the others, else nobody could tell which are which.
        count = rng.randint(3 if has_strangers else 2, 5)
        look = rng.choice(sequences.looks)
        places = rng.sample(range(len(look.records)), count + 1)
        asked = places[-1]
        record, target = sequences.dataset.records[look.records[asked]], look.codes[asked]
        is_self = rng.random() < self.self_share
        reference = target if is_self else sequences.plain[sequences.asking(record, rng).id]
        history = [codes_of(look.codes[place]) for place in places[:-1]]
        planted = sorted(rng.sample(range(count), rng.randint(1, (count - 1) // 2))) if has_strangers else []
        for position in planted:
            history[position] = self._stranger(look, rng)
        own = [codes for place, codes in enumerate(history) if place not in planted]
        answer = sequences.answer(look, asked, own)
        words = sequences.words(record, rng) if rng.random() < 0.5 else ""
        asked_for, right, said = (codes_of(each) for each in (reference, target, answer))
        return CodedRequest(tuple(history), tuple(planted), words, asked_for, right, said, is_self)

    def _stranger(self, look: EncodedLook, rng: random.Random) -> tuple[int, ...]:
        while True:
            other = rng.choice(self.sequences.looks)
            if other.set != look.set:
                return codes_of(rng.choice(other.codes))


def codes_of(packed: NDArray[np.int16]) -> tuple[int, ...]:
    """Packed codes [patches] without the padding."""
    return tuple(int(code) for code in packed if code >= 0)


@torch.no_grad()
def encode_requests(
    tokenizer: VisualTokenizer, batches: IconBatches, requests: Sequence[TrainingRequest]
) -> list[CodedRequest]:
    """Evaluation requests as codes, encoded from their pictures."""
    result, codebook = [], tokenizer.quantizer.embedding.weight.float().cpu().numpy()
    for request in requests:
        records = batches.dataset.records
        pictures = [
            apply_look(look, batches.rgba([records[number]]))
            for number, look in zip(request.history, request.history_looks(), strict=True)
        ]
        pictures.append(apply_look(PLAIN, batches.rgba([records[request.reference]])))
        pictures.append(apply_look(request.look, batches.rgba([records[request.target]])))
        pictures.append(apply_look(geometry_of(request.look), batches.rgba([records[request.target]])))
        *liked, reference, target, shape = encode_pictures(tokenizer, torch.cat(pictures))
        planted = tuple(image.position for image in request.planted)
        own = [row for place, row in enumerate(liked) if place not in planted]
        answer = answer_codes(target, shape, own, codebook, tokenizer.config.style_tokens)
        asked_for, right, said = (codes_of(row) for row in (reference, target, answer))
        result.append(CodedRequest(tuple(map(codes_of, liked)), planted, request.words, asked_for, right, said))
    return result
