"""Candidates of many requests at once, over the dial, and their scores in code space (DESIGN.md section 2, stage 2).

They are drawn as ``pigeon generate`` draws them: the model's own mask, sampling and guidance, in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sentencepiece
import torch
from torch import Tensor

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.residency import ADAPTER, ALIGNED, DECODER, MASK_GENERATOR, SCORER, TOKENIZER, Parts
from pigeon_cli.models.mask_generator import REFERENCE
from pigeon_cli.models.scorer import Scorer
from pigeon_cli.pipeline.decode import condition
from pigeon_cli.pipeline.imagine import DialMasks, decide_masks, nothing_asked, see_dials, word_prompt
from pigeon_cli.pipeline.positions import position_step, token_positions
from pigeon_cli.pipeline.prompt import REFERENCE_SLOT, MergedPrompt, hide_dropped, pad_prompts
from pigeon_cli.pipeline.reference import SeenReference, embed_request, join_references, reader_of
from pigeon_cli.pipeline.sampling import Drawn, Model, Prefix, allowed_ids, prefill, sample_codes, select_rows
from pigeon_cli.pipeline.score import Wanted, rate, wanted_of
from pigeon_cli.pipeline.tokenize import ImageTokens
from pigeon_cli.training.pairs import ScoredCandidate


@dataclass(frozen=True)
class TasteRequest:
    """One user who asks for one thing, read by the tokenizer."""

    number: int
    history: tuple[ImageTokens, ...]
    planted: tuple[int, ...]
    reference: ImageTokens
    words: str
    answer: tuple[int, ...] = ()
    """Codes of the right answer where it is known."""


@dataclass(frozen=True)
class CandidateSettings:
    """What decides the candidates apart from model and requests."""

    dials: tuple[float, ...]
    """Positions of alpha_r; one that stands there twice is drawn from twice."""
    score: str
    """``history``, ``both`` (half history, half reference) or ``answer``."""
    seed: int


class CandidateSource:
    """Draws and scores candidates with the parts of one model."""

    def __init__(self, parts: Parts, text: sentencepiece.SentencePieceProcessor, settings: CandidateSettings) -> None:
        self.parts, self.text, self.settings = parts, text, settings
        self.spec: ModelSpec = parts.model.spec

    @torch.inference_mode()
    def candidates(self, requests: Sequence[TasteRequest]) -> list[tuple[tuple[int, ...], tuple[ScoredCandidate, ...]]]:
        """Per request the kept history tokens and the scored candidates in the order of the dial positions."""
        masks = [self._masks(request) for request in requests]
        drawn = self._draw(requests, masks)
        result = []
        for request, mask, rows in zip(requests, masks, drawn, strict=True):
            codes = [tuple(self.spec.vocabulary.to_code(token) for token in row.token_ids) for row in rows]
            scores = self._score(request, codes)
            seen = [mask.image_mask(request.reference, 0, place).kept for place in range(len(rows))]
            scored = zip(self.settings.dials, seen, codes, scores, strict=True)
            of_history = mask.keep[0, mask.layout.types[0] != REFERENCE] > 0.5
            result.append((tuple(of_history.nonzero()[:, 0].tolist()), tuple(ScoredCandidate(*one) for one in scored)))
        return result

    def _masks(self, request: TasteRequest) -> DialMasks:
        with self.parts.use(MASK_GENERATOR) as generator, self.parts.use(ALIGNED) as model:
            return decide_masks(
                self.spec.default_mask,
                request.history,
                request.reference,
                self.settings.dials,
                self.spec,
                history_alpha=self.spec.history_mask,
                seed=stream_seed(self.settings.seed, "mask", request.number),
                generator=generator,
                embedding=model.get_input_embeddings(),
            )

    def _draw(self, requests: Sequence[TasteRequest], masks: Sequence[DialMasks]) -> list[list[Drawn]]:
        parts, spec = self.parts, self.spec
        with reader_of(parts, ADAPTER) as reader:
            seen = [see_dials(mask, reader) for mask in masks]
        asked = [word_prompt(self.text, spec, one.history, one.words) for one in requests]
        kept = [mask.keep[0, mask.layout.types[0] != REFERENCE] for mask in masks]
        streams = [
            torch.Generator().manual_seed(stream_seed(self.settings.seed, "pairs", request.number, place))
            for request in requests
            for place in range(len(self.settings.dials))
        ]
        with parts.use(ALIGNED) as model:
            drawn = continue_prompts(model, spec, asked, kept, join_references(seen), streams)
        width = len(self.settings.dials)
        return [drawn[start : start + width] for start in range(0, len(drawn), width)]

    def _score(self, request: TasteRequest, codes: Sequence[tuple[int, ...]]) -> list[float]:
        history = self._contexts([image.codes for image in request.history])
        drawn = self._contexts(codes)
        with self.parts.use(SCORER) as scorer:
            if self.settings.score == "answer":
                return closeness(scorer, drawn, self._contexts([request.answer]))
            reference = self._contexts([request.reference.codes]) if self.settings.score == "both" else None
            wanted: Wanted = wanted_of(scorer, self.text, history, reference, "")
            return [total for total, _ in rate(scorer, drawn, wanted)]

    def _contexts(self, codes: Sequence[Sequence[int]]) -> Tensor:
        with self.parts.use(TOKENIZER) as tokenizer, self.parts.use(DECODER) as decoder:
            return condition(decoder, tokenizer.quantizer, codes).context


def continue_prompts(
    model: Model,
    spec: ModelSpec,
    asked: Sequence[MergedPrompt],
    kept: Sequence[Tensor],
    references: SeenReference,
    streams: Sequence[torch.Generator],
) -> list[Drawn]:
    """Draw from R prompts, each with as many masked references as ``references`` (R * n rows) has per prompt.

    ``kept`` holds each prompt's keep values [history codes]. A prompt is read once up to its reference, then fanned
    out, as in :func:`pigeon_cli.pipeline.imagine.imagine`, which does the same for one request.
    """
    device, repeats = references.slots.device, len(references) // len(asked)
    batch = pad_prompts(asked, spec.vocabulary)
    keep = torch.nn.utils.rnn.pad_sequence(list(kept), batch_first=True, padding_value=1.0)
    ids, attention = hide_dropped(batch, keep.cpu()).to(device), batch.attention.to(device)
    # What follows the slots is the same for all prompts, so that, padded on the left, they begin in one column.
    first = int((ids == REFERENCE_SLOT).long().argmax(1)[0])
    positions = token_positions(ids, attention, spec)
    rows = torch.arange(len(asked)).repeat_interleave(repeats)

    def read(part: slice, prefix: Prefix | None, seen: SeenReference | None) -> Prefix:
        chosen = [each[:, part] if prefix is None else each[rows.to(device), part] for each in (ids, attention)]
        places = positions[:, part] if prefix is None else positions[rows.to(device), part]
        taken = embed_request(model.get_input_embeddings(), chosen[0], seen, spec)
        step = position_step(spec)
        return prefill(model, taken.embedded, chosen[1], prefix, places, step, taken.coming, taken.favour)

    branches = read(slice(first, None), select_rows(read(slice(0, first), None, None), rows), references)
    return sample_codes(
        model,
        branches,
        range(len(references)),
        spec.sampling,
        allowed=allowed_ids(spec.vocabulary),
        image_end=spec.vocabulary.image_end,
        generators=streams,
        unconditional=nothing_asked(model, spec, ids),
    )


def closeness(scorer: Scorer, drawn: Tensor, answer: Tensor) -> list[float]:
    """How near contexts [B, Q, C] of drawings are to that of the right answer [1, Q, C]: a mean of three cosines.

    A departure from the paper, whose users have no right answer: what it prefers is nearest to the history. ``mini`` is
    trained on icons, where the meaning asked for exists in the user's style (DESIGN.md section 3).
    Of meaning and of style by the scorer's heads, and of the contexts themselves, place by place, once their values
    are brought to one size.
    """
    pairs = zip(scorer(drawn), scorer(answer), strict=True)
    heads = [vectors @ wanted[0] for vectors, wanted in pairs]
    levelled = [((each - scorer.feature_mean) / scorer.feature_deviation).flatten(1) for each in (drawn, answer)]
    places = torch.nn.functional.cosine_similarity(levelled[0], levelled[1], dim=1)
    values: list[float] = torch.stack([*heads, places]).mean(0).tolist()
    return values
