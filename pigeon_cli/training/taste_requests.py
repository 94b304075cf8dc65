"""Where the requests of preference pairs come from, read by the tokenizer a few at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.pipeline.tokenize import kept_tokens
from pigeon_cli.training.batches import IconBatches, normalise
from pigeon_cli.training.candidates import TasteRequest
from pigeon_cli.training.data.looks import PLAIN, apply_look
from pigeon_cli.training.data.requests import draw_training_request


class RequestSource(Protocol):
    """Numbered requests; the same number is the same request."""

    @property
    def count(self) -> int | None:
        """How many there are, ``None`` where they never end."""

    @property
    def has_answers(self) -> bool:
        """Whether right answers are known."""

    @property
    def sha256(self) -> str:
        """Of what the requests are made from."""

    def read(self, tokenizer: VisualTokenizer, numbers: Sequence[int]) -> list[TasteRequest]:
        """Requests with their tokens."""


@dataclass(frozen=True)
class IconRequests:
    """Requests of train cells under trained looks, the right answer of each known (DESIGN.md section 3)."""

    batches: IconBatches
    seed: int
    sha256: str
    """Of the dataset's index."""

    @property
    def count(self) -> None:
        return None

    @property
    def has_answers(self) -> bool:
        return True

    @torch.inference_mode()
    def read(self, tokenizer: VisualTokenizer, numbers: Sequence[int]) -> list[TasteRequest]:
        records = self.batches.dataset.records
        asked, pictures = [], []
        for number in numbers:
            rng = random.Random(stream_seed(self.seed, "pairs", number))
            request = draw_training_request(self.batches.dataset, rng)
            looks = (*request.history_looks(), PLAIN, request.look)
            ids = (*request.history, request.reference, request.target)
            pictures += [
                apply_look(look, self.batches.rgba([records[id]])) for look, id in zip(looks, ids, strict=True)
            ]
            asked.append(request)
        tokens = iter(kept_tokens(tokenizer.encode(normalise(torch.cat(pictures))), tokenizer.config.style_tokens))
        result = []
        for number, request in zip(numbers, asked, strict=True):
            history = tuple(next(tokens) for _ in request.history)
            planted = tuple(image.position for image in request.planted)
            reference, answer = next(tokens), next(tokens)
            result.append(TasteRequest(number, history, planted, reference, request.words, answer.codes))
        return result
