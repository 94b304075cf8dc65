"""Two scores for every candidate, by what a model offers: its own scorer, or, for published models, none and CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import sentencepiece
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pigeon_cli.core.records import ScoreParts
from pigeon_cli.engine.residency import CLIP, DECODER, QUANTIZER, SCORER, TOKENIZER, Parts
from pigeon_cli.history.preprocess import to_pixels
from pigeon_cli.models.embedding_decoder import DecodedCondition
from pigeon_cli.pipeline.decode import condition
from pigeon_cli.pipeline.score import Wanted, rate, wanted_of
from pigeon_cli.pipeline.tokenize import ImageTokens, tokenize

Rating = tuple[float, ScoreParts]
Codes = Sequence[Sequence[int]]

HISTORY_SHARE = 0.5
"""The rest is the reference's or the words' (DESIGN.md section 2, "Selection")."""
METRIC_SIDE = 512
"""Images are brought to this size first, in bilinear steps, as the paper's metrics do (DESIGN.md, "Metrics")."""


@dataclass(frozen=True)
class Inputs:
    """What a request gives, as pictures and as tokens."""

    pictures: Sequence[Image.Image]
    """The history."""
    picture: Image.Image | None
    """The reference; ``None`` where it was imagined from words."""
    history: list[ImageTokens]
    reference: ImageTokens
    words: str
    tastes: Tensor | None = None
    """Float [images, width] of the history, for a model that reads them."""

    @property
    def asks_for(self) -> list[tuple[int, ...]]:
        """Codes of the reference if there is one to agree with; one that was imagined is not."""
        return [] if self.picture is None else [self.reference.codes]


class Rater(Protocol):
    """Rates the candidates of one request: all of them by codes, those that are drawn by their pixels."""

    @property
    def sees_pixels(self) -> bool:
        """Whether :meth:`score` can be asked."""

    def prescore(self, inputs: Inputs, candidates: Codes) -> list[Rating]:
        """A rating for each candidate, higher is better."""

    def score(self, inputs: Inputs, images: Sequence[Image.Image]) -> list[Rating]:
        """A rating for each drawn image."""


def condition_of(parts: Parts, codes: Codes) -> DecodedCondition:
    """What the image generator is conditioned on, by the decoder in memory."""
    with parts.use(QUANTIZER) as quantizer, parts.use(DECODER) as decoder:
        return condition(decoder, quantizer, codes)


class LearnedRater:
    """The model's own scorer; drawn images are read back into codes."""

    sees_pixels = True

    def __init__(self, parts: Parts, text: sentencepiece.SentencePieceProcessor) -> None:
        self._parts, self._text = parts, text
        self._wanted: Wanted | None = None

    def prescore(self, inputs: Inputs, candidates: Codes) -> list[Rating]:
        with self._parts.use(SCORER) as scorer:
            history = self._context([tokens.codes for tokens in inputs.history])
            reference = self._context(inputs.asks_for) if inputs.asks_for else None
            self._wanted = wanted_of(scorer, self._text, history, reference, inputs.words)
            return rate(scorer, self._context(candidates), self._wanted)

    def score(self, inputs: Inputs, images: Sequence[Image.Image]) -> list[Rating]:
        assert self._wanted is not None
        with self._parts.use(TOKENIZER) as tokenizer:
            codes = [tokens.codes for tokens in tokenize(tokenizer, images)]
        with self._parts.use(SCORER) as scorer:
            return rate(scorer, self._context(codes), self._wanted)

    def _context(self, codes: Codes) -> Tensor:
        return condition_of(self._parts, codes).context


class FreeRater:
    """Nothing trained: codes are compared in the decoder's space, pixels by CLIP and the paper's rule (DESIGN.md,
    "Selection")."""

    def __init__(self, parts: Parts, title: str) -> None:
        """``title`` stands for the words where there are none, as in posters."""
        self._parts, self._title = parts, title

    @property
    def sees_pixels(self) -> bool:
        return self._parts.model.clip is not None

    def prescore(self, inputs: Inputs, candidates: Codes) -> list[Rating]:
        """Half the mean cosine with the history, half that with the reference image where there is one."""
        history = self._vectors([tokens.codes for tokens in inputs.history])
        drawn = self._vectors(candidates)
        liked = (drawn @ history.T).mean(1)
        if inputs.picture is None:
            return [(total, ScoreParts(history=total)) for total in liked.tolist()]
        asked = drawn @ self._vectors([inputs.reference.codes])[0]
        totals = HISTORY_SHARE * liked + (1 - HISTORY_SHARE) * asked
        rows = zip(totals.tolist(), liked.tolist(), asked.tolist(), strict=True)
        return [(total, ScoreParts(history=first, reference=second)) for total, first, second in rows]

    def score(self, inputs: Inputs, images: Sequence[Image.Image]) -> list[Rating]:
        """Half the cosine with the words or title, half the mean with the history; without either the history alone."""
        drawn, history = self._seen(images), self._seen(inputs.pictures)
        liked = (drawn @ history.T).mean(1)
        words = inputs.words if inputs.words.strip() else self._title
        asked = drawn @ self._read(words) if words else None
        totals = liked if asked is None else HISTORY_SHARE * liked + (1 - HISTORY_SHARE) * asked
        likeness = drawn @ self._seen([inputs.picture])[0] if inputs.picture is not None else None
        columns = [None if part is None else part.tolist() for part in (liked, likeness, asked)]
        return [
            (total, ScoreParts(*(None if column is None else column[row] for column in columns)))
            for row, total in enumerate(totals.tolist())
        ]

    def _vectors(self, codes: Codes) -> Tensor:
        """Float32 unit vectors: the mean of the context beside the pooled vector, each of length one before."""
        found = condition_of(self._parts, codes)
        halves = (found.context.float().mean(1), found.pooled.float())
        return functional.normalize(torch.cat([functional.normalize(half, dim=-1) for half in halves], 1), dim=-1)

    def _seen(self, images: Sequence[Image.Image]) -> Tensor:
        from pigeon_cli.models.encoders import image_features

        with self._parts.use(CLIP) as clip:
            side = int(clip.config.vision_config.image_size)
            resized = [image.resize((METRIC_SIDE, METRIC_SIDE), Image.Resampling.BILINEAR) for image in images]
            pixels = torch.stack([torch.from_numpy(to_pixels(image, side)) for image in resized])
            return functional.normalize(image_features(clip, pixels), dim=-1)

    def _read(self, words: str) -> Tensor:
        from pigeon_cli.models.encoders import word_features

        with self._parts.use(CLIP) as clip:
            limit = int(clip.config.text_config.max_position_embeddings)
            read = self._tokenizer([words], truncation=True, max_length=limit, return_tensors="pt")
            features = word_features(clip, read["input_ids"], read["attention_mask"])
            return functional.normalize(features, dim=-1)[0]

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        return CLIPTokenizer.from_pretrained(str(self._parts.model.clip), local_files_only=True)


def rater_of(parts: Parts, text: sentencepiece.SentencePieceProcessor, title: str) -> Rater:
    """The model's own scorer, or nothing trained where it has none; ``title`` as in :class:`FreeRater`."""
    return FreeRater(parts, title) if parts.model.spec.scorer is None else LearnedRater(parts, text)
