"""A loaded model and its verbs; nothing of one call is left over for the next but the parts in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Unpack

import sentencepiece
import torch
from PIL import Image
from torch import Tensor
from transformers import LlamaForCausalLM

from pigeon_cli.core.errors import InputError, UsageError, WeightsError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.core.records import Candidate, ScoreParts, StageTiming, TokenMask
from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.engine.memory import stays_whole
from pigeon_cli.engine.residency import (
    ADAPTER,
    ALIGNED,
    BASE,
    BASE_ADAPTER,
    DECODER,
    MASK_GENERATOR,
    SCORER,
    TOKENIZER,
    UNET,
    VAE,
    Part,
    Parts,
)
from pigeon_cli.models.embedding_decoder import DecodedCondition
from pigeon_cli.pipeline.decode import condition, draw_latents, to_images
from pigeon_cli.pipeline.imagine import (
    DialMasks,
    decide_masks,
    imagine,
    imagine_reference,
    reference_slots,
    word_prompt,
)
from pigeon_cli.pipeline.rank import drop_repeats, rank, shortlist, warnings_of
from pigeon_cli.pipeline.score import Wanted, rate, wanted_of
from pigeon_cli.pipeline.settings import SPARE_DRAWINGS, Choices, Settings, resolve
from pigeon_cli.pipeline.stages import Progress, Stages
from pigeon_cli.pipeline.tokenize import ImageTokens, as_drawn, drawn_tokens, tokenize
from pigeon_cli.pipeline.words import known_words, word_warnings
from pigeon_cli.weights.store import ModelFolder

COMPUTE_DTYPE = torch.float32
"""The one place that says in which type models compute at inference."""


@dataclass(frozen=True)
class Drawing:
    """One image that was drawn, and its record."""

    image: Image.Image
    candidate: Candidate


@dataclass(frozen=True)
class Outcome:
    """What a call of :meth:`Session.personalize` made."""

    drawn: list[Drawing]
    """Every drawn candidate, best first; those with ``candidate.chosen`` are what was asked for."""
    candidates: tuple[Candidate, ...]
    """Every candidate, in the order in which they were tried."""
    history_tokens: tuple[TokenMask, ...]
    settings: Settings
    stages: tuple[StageTiming, ...]
    warnings: tuple[str, ...]

    @property
    def images(self) -> list[Image.Image]:
        """The chosen images, best first."""
        return [drawing.image for drawing in self.drawn if drawing.candidate.chosen]


@dataclass(frozen=True)
class MaskOutcome:
    """What a call of :meth:`Session.masks` decided."""

    history_tokens: tuple[TokenMask, ...]
    """One per history image; the same at every dial position."""
    reference_tokens: tuple[TokenMask, ...]
    """One per dial position of the settings."""
    settings: Settings


@dataclass(frozen=True)
class _Inputs:
    history: list[ImageTokens]
    reference: ImageTokens
    words: str
    reference_given: bool


class Session:
    """One model on one device. Images are RGB and of any size."""

    def __init__(self, folder: ModelFolder, device: DeviceChoice) -> None:
        self.folder, self.spec, self.device = folder, folder.spec, device
        self.parts = Parts(folder, device, keep=stays_whole(folder))

    @cached_property
    def text(self) -> sentencepiece.SentencePieceProcessor:
        """Text to ids; raises :class:`WeightsError` where its size is not the configured one."""
        path = self.folder.text_model
        try:
            processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise WeightsError(f"cannot read the text model {path}: {error}", "reinstall pigeon") from error
        if processor.get_piece_size() != self.spec.vocabulary.text_size:
            raise WeightsError(
                f"the text model {path} has {processor.get_piece_size()} pieces, its configuration names "
                f"{self.spec.vocabulary.text_size}",
                "use the files of one and the same model",
            )
        return processor

    def personalize(
        self,
        history: Sequence[Image.Image],
        reference: Image.Image | None,
        words: str = "",
        progress: Progress | None = None,
        **choices: Unpack[Choices],
    ) -> Outcome:
        """Draw what ``reference`` and ``words`` ask for (one of them may be missing) in the taste of ``history``."""
        settings, stages = resolve(self.spec, choices), Stages(self.parts, progress)
        with self._computing():
            inputs = self._read(history, reference, words, settings, stages)
            with stages("mask", len(settings.dials)):
                masks = self._mask(inputs, settings)
                slots = self._slots(masks, settings)
            codes = self._imagine(inputs, masks, slots, settings, stages)
            candidates = self._record(inputs, masks, codes, settings)
            wanted, candidates = self._prescore(inputs, candidates, stages)
            candidates, best = shortlist(candidates, settings.count + SPARE_DRAWINGS)
            images = self._draw([candidates[place] for place in best], settings, stages)
            for place, (score, parts) in zip(best, self._score(images, wanted, stages), strict=True):
                candidates[place] = replace(candidates[place], score=score, score_parts=parts)
        candidates, order = rank(candidates, best, settings.count)
        by_place = dict(zip(best, images, strict=True))
        return Outcome(
            drawn=[Drawing(by_place[place], candidates[place]) for place in order],
            candidates=tuple(candidates),
            history_tokens=self._history_masks(inputs, masks),
            settings=settings,
            stages=stages.timings(),
            warnings=(*self._word_warnings(words, settings), *warnings_of(candidates, settings.count)),
        )

    def masks(
        self,
        history: Sequence[Image.Image],
        reference: Image.Image | None,
        words: str = "",
        progress: Progress | None = None,
        **choices: Unpack[Choices],
    ) -> MaskOutcome:
        """Which tokens :meth:`personalize` would keep and drop, told the same; nothing is drawn."""
        settings, stages = resolve(self.spec, choices), Stages(self.parts, progress)
        with self._computing():
            inputs = self._read(history, reference, words, settings, stages)
            with stages("mask", len(settings.dials)):
                masks = self._mask(inputs, settings)
        return MaskOutcome(self._history_masks(inputs, masks), self._reference_masks(inputs, masks, settings), settings)

    def mask_report(
        self,
        history: Sequence[Image.Image],
        reference: Image.Image | None,
        words: str = "",
        **choices: Unpack[Choices],
    ) -> tuple[TokenMask, ...]:
        """The history's part of :meth:`masks`."""
        return self.masks(history, reference, words, **choices).history_tokens

    def reconstruct(self, image: Image.Image, **choices: Unpack[Choices]) -> Image.Image:
        """The image through codes and back: what the image generator makes of a perfect answer."""
        settings, stages = resolve(self.spec, choices), Stages(self.parts, None)
        with self._computing(), self.parts.use(TOKENIZER) as tokenizer:
            codes = tokenize(tokenizer, [image])[0].codes
            return self._draw([Candidate(0.0, 0, codes, len(codes), 0)], settings, stages)[0]

    @contextmanager
    def _computing(self) -> Iterator[None]:
        kind = self.device.device.type
        reduced = torch.float32 != COMPUTE_DTYPE
        with torch.inference_mode(), torch.autocast(kind, dtype=COMPUTE_DTYPE if reduced else None, enabled=reduced):
            yield

    def _read(
        self,
        history: Sequence[Image.Image],
        reference: Image.Image | None,
        words: str,
        settings: Settings,
        stages: Stages,
    ) -> _Inputs:
        if not history or (reference is None and not words.strip()):
            raise InputError("there is nothing to go by", "give liked images, and a reference or words")
        given = [*history] if reference is None else [*history, reference]
        with stages("read the images", len(given)), self.parts.use(TOKENIZER) as tokenizer:
            tokens = tokenize(tokenizer, given)
        if reference is not None:
            self._check_length(tokens[:-1], words, settings)
            return _Inputs(tokens[:-1], tokens[-1], words, True)
        self._check_length(tokens, words, settings)
        prompt = word_prompt(self.text, self.spec, [], words, with_reference=False)
        with stages("imagine a reference", 1), self.parts.use(BASE) as model, self.parts.use(TOKENIZER) as tokenizer:
            stream = _stream(settings.seed, "reference")
            imagined = drawn_tokens(tokenizer, imagine_reference(model, self.spec, prompt, stream, settings.sampling))
            tokens = [as_drawn(tokenizer, each) for each in tokens]
        return _Inputs(tokens, imagined, words, False)

    def _check_length(self, history: Sequence[ImageTokens], words: str, settings: Settings) -> None:
        prompt = word_prompt(self.text, self.spec, history, words, with_reference=True, emotion=settings.emotion)
        most = self.spec.language.max_positions
        if len(prompt.ids) + settings.sampling.maximum_tokens > most:
            raise UsageError(
                f"a prompt of {len(prompt.ids)} tokens and {settings.sampling.maximum_tokens} new ones are more than "
                f"the {most} that the model {self.spec.name} can read",
                "give fewer words or history images, or a smaller --max-tokens",
            )

    def _mask(self, inputs: _Inputs, settings: Settings) -> DialMasks:
        with self.parts.use(MASK_GENERATOR) as generator, self.parts.use(self._language(settings)) as model:
            return decide_masks(
                settings.mask,
                inputs.history,
                inputs.reference,
                settings.dials,
                self.spec,
                history_alpha=settings.history_mask,
                seed=settings.seed,
                generator=generator,
                embedding=model.get_input_embeddings(),
            )

    def _slots(self, masks: DialMasks, settings: Settings) -> Tensor:
        parts, own = self.parts, ADAPTER if settings.aligned else BASE_ADAPTER
        with parts.use(TOKENIZER) as tokenizer, parts.use(DECODER) as decoder, parts.use(own) as adapter:
            return reference_slots(masks, self.spec, tokenizer.quantizer, decoder, adapter)

    def _imagine(
        self, inputs: _Inputs, masks: DialMasks, slots: Tensor, settings: Settings, stages: Stages
    ) -> list[tuple[int, ...]]:
        words, emotion = inputs.words, settings.emotion
        asked = word_prompt(self.text, self.spec, inputs.history, words, with_reference=True, emotion=emotion)
        streams = [_stream(settings.seed, "imagine", settings.dials[dial], sample) for dial, sample in settings.tries]
        rows = [dial for dial, _ in settings.tries]
        with stages("imagine", len(rows)), self.parts.use(self._language(settings)) as model:
            drawn = imagine(model, self.spec, asked, masks, slots, rows, streams, settings.sampling)
        return [tuple(self.spec.vocabulary.to_code(token) for token in each.token_ids) for each in drawn]

    def _record(
        self, inputs: _Inputs, masks: DialMasks, codes: Sequence[tuple[int, ...]], settings: Settings
    ) -> list[Candidate]:
        seen = self._reference_masks(inputs, masks, settings)
        return drop_repeats(
            [
                Candidate(
                    dial=settings.dials[dial],
                    sample=sample,
                    codes=drawn,
                    kept=len(seen[dial].kept),
                    dropped=len(seen[dial].dropped),
                    reference_tokens=seen[dial],
                )
                for (dial, sample), drawn in zip(settings.tries, codes, strict=True)
            ]
        )

    def _prescore(
        self, inputs: _Inputs, candidates: Sequence[Candidate], stages: Stages
    ) -> tuple[Wanted, list[Candidate]]:
        with stages("prescore", len(candidates)), self.parts.use(SCORER) as scorer:
            history = self._condition([tokens.codes for tokens in inputs.history]).context
            reference = self._condition([inputs.reference.codes]).context if inputs.reference_given else None
            wanted = wanted_of(scorer, self.text, history, reference, inputs.words)
            rated = rate(scorer, self._condition([candidate.codes for candidate in candidates]).context, wanted)
        return wanted, [
            replace(candidate, prescore=score, prescore_parts=parts)
            for candidate, (score, parts) in zip(candidates, rated, strict=True)
        ]

    def _draw(self, candidates: Sequence[Candidate], settings: Settings, stages: Stages) -> list[Image.Image]:
        streams = [_stream(settings.seed, "draw", each.dial, each.sample) for each in candidates]
        with stages("draw", len(candidates)):
            wanted = self._condition([candidate.codes for candidate in candidates])
            with self.parts.use(UNET) as unet:
                latents = draw_latents(
                    unet, self.spec.diffusion, wanted, streams, steps=settings.steps, guidance=settings.guidance
                )
            with self.parts.use(VAE) as vae:
                return to_images(vae, latents)

    def _score(self, images: Sequence[Image.Image], wanted: Wanted, stages: Stages) -> list[tuple[float, ScoreParts]]:
        with stages("score", len(images)):
            with self.parts.use(TOKENIZER) as tokenizer:
                codes = [tokens.codes for tokens in tokenize(tokenizer, images)]
            with self.parts.use(SCORER) as scorer:
                return rate(scorer, self._condition(codes).context, wanted)

    def _condition(self, codes: Sequence[Sequence[int]]) -> DecodedCondition:
        with self.parts.use(TOKENIZER) as tokenizer, self.parts.use(DECODER) as decoder:
            return condition(decoder, tokenizer.quantizer, codes)

    def _history_masks(self, inputs: _Inputs, masks: DialMasks) -> tuple[TokenMask, ...]:
        return tuple(masks.image_mask(tokens, image) for image, tokens in enumerate(inputs.history, start=1))

    def _reference_masks(self, inputs: _Inputs, masks: DialMasks, settings: Settings) -> tuple[TokenMask, ...]:
        return tuple(masks.image_mask(inputs.reference, 0, dial) for dial in range(len(settings.dials)))

    def _word_warnings(self, words: str, settings: Settings) -> tuple[str, ...]:
        known = known_words(self.folder.path)
        return word_warnings(self.spec.name, self.text, known, words, settings.emotion)

    def _language(self, settings: Settings) -> Part[LlamaForCausalLM]:
        return ALIGNED if settings.aligned else BASE


def _stream(seed: int, *names: object) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, *names))
