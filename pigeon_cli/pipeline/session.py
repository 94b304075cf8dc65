"""A loaded model and its verbs; nothing of one call is left over for the next but the parts in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar, Unpack

import sentencepiece
import torch
from PIL import Image
from torch import Tensor, nn

from pigeon_cli.core.errors import InputError, MemoryBudgetError, UsageError, WeightsError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.core.records import Candidate, TokenMask
from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.engine.plan import Plan
from pigeon_cli.engine.residency import (
    ADAPTER,
    BASE_ADAPTER,
    EMBEDDING,
    MASK_GENERATOR,
    QUANTIZER,
    TOKENIZER,
    Parts,
)
from pigeon_cli.engine.stage_bytes import LANGUAGE_ROWS, Demand, reference_sampling
from pigeon_cli.models.mask_generator import MaskGenerator
from pigeon_cli.pipeline.asked import Asked
from pigeon_cli.pipeline.draw import Liked, draw
from pigeon_cli.pipeline.imagine import (
    DialMasks,
    decide_masks,
    imagine,
    imagine_reference,
    reference_prompt,
    see_dials,
    word_prompt,
)
from pigeon_cli.pipeline.outcomes import Drawing, MaskOutcome, Outcome
from pigeon_cli.pipeline.planning import Budget, MoreTokens, demand_of, device_of, needs_plan, plan_for
from pigeon_cli.pipeline.rank import drop_repeats, rank, shortlist, warnings_of
from pigeon_cli.pipeline.raters import Inputs, rater_of
from pigeon_cli.pipeline.recall import Remembered, recall, remembered
from pigeon_cli.pipeline.reference import SeenReference, reader_of
from pigeon_cli.pipeline.settings import Choices, Settings, resolve
from pigeon_cli.pipeline.stages import Progress, Stages
from pigeon_cli.pipeline.taste import mean_taste, read_tastes
from pigeon_cli.pipeline.tokenize import ImageTokens, as_drawn, drawn_tokens, tokenize
from pigeon_cli.pipeline.words import known_words, word_warnings
from pigeon_cli.weights.stored_model import StoredModel

R = TypeVar("R")

UNTRAINED_MASK = (
    "--mask learned: the published mask generator was never trained; similarity is what this model is made for"
)
NOTHING_HIDDEN = (
    "--mask off hides nothing: --ref-mask and --history-mask decide nothing, and all dial positions are alike"
)
NO_CLIP = (
    "ranked before drawing, without a look at the pixels; for the paper's rule type: pigeon download clip-vit-h-14"
)


class Session:
    """One model on one device, within a budget. Images are RGB and of any size."""

    def __init__(self, model: StoredModel, device: DeviceChoice, budget: Budget | None = None) -> None:
        self.model, self.spec, self.budget = model, model.spec, budget or Budget()
        self._chosen = device
        self.parts = Parts(model, device)
        self._planned_tokens = 0

    @property
    def device(self) -> DeviceChoice:
        """Where the last call computed."""
        return self.parts.device

    @cached_property
    def text(self) -> sentencepiece.SentencePieceProcessor:
        """Text to ids; raises :class:`WeightsError` where its size is not the configured one."""
        path = self.model.text_model
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

    @cached_property
    def memory(self) -> tuple[Remembered, ...]:
        """How the things are called that the model can draw by heart."""
        return () if self.spec.memory is None else remembered(self.model.path)

    def plan(
        self, history: int, has_reference: bool, words: str = "", titles: Sequence[str] = (), **choices: Unpack[Choices]
    ) -> Plan:
        """What :meth:`personalize` would do with so many images, and what it takes; nothing is loaded."""
        settings = resolve(self.model, choices)
        return self._plan(history, has_reference, words, titles, settings, draws=True)

    def personalize(
        self,
        history: Sequence[Image.Image],
        reference: Image.Image | None,
        words: str = "",
        progress: Progress | None = None,
        titles: Sequence[str] = (),
        **choices: Unpack[Choices],
    ) -> Outcome:
        """Draw what ``reference`` and ``words`` ask for (one of them may be missing) in the taste of ``history``.

        ``titles`` are those of the history, for a wording that has a place for them. Raises
        :class:`MemoryBudgetError` where the budget is too small.
        """
        settings, asked = resolve(self.model, choices), Asked(history, reference, words, titles)
        outcome, told = self._within_memory(
            asked, settings, True, lambda: self._personalize(asked, settings, Stages(self.parts, progress))
        )
        return replace(outcome, warnings=(*told, *outcome.warnings), plan=self.parts.plan)

    def masks(
        self,
        history: Sequence[Image.Image],
        reference: Image.Image | None,
        words: str = "",
        progress: Progress | None = None,
        **choices: Unpack[Choices],
    ) -> MaskOutcome:
        """Which tokens :meth:`personalize` would keep and drop, told the same; nothing is drawn."""
        settings, asked = resolve(self.model, choices), Asked(history, reference, words, ())
        outcome, told = self._within_memory(
            asked, settings, False, lambda: self._masks(asked, settings, Stages(self.parts, progress))
        )
        return replace(outcome, warnings=(*told, *outcome.warnings))

    def reconstruct(self, image: Image.Image, **choices: Unpack[Choices]) -> Image.Image:
        """The image through codes and back: what the image generator makes of a perfect answer."""
        settings, stages = resolve(self.model, choices), Stages(self.parts, None)
        with torch.inference_mode(), self.parts.use(TOKENIZER) as tokenizer:
            codes, taste = tokenize(tokenizer, [image])[0].codes, read_tastes(self.parts, [image])
            whole = Candidate(0.0, 0, codes, len(codes), 0)
            return self._draw([whole], settings, stages, taste=None if taste is None else taste[0])[0]

    def _plan(
        self,
        history: int,
        has_reference: bool,
        words: str,
        titles: Sequence[str],
        settings: Settings,
        draws: bool,
        failed: Plan | None = None,
        per_image: int | None = None,
    ) -> Plan:
        def demand(tokens: int | None) -> Demand:
            return demand_of(self.model, self.text, settings, history, has_reference, words, titles, draws, tokens)

        likely = demand(per_image)
        self._planned_tokens = likely.tokens
        try:
            return plan_for(self.model, likely, self._chosen, self.budget, failed)
        except MemoryBudgetError:
            # The budget that the error names must suffice whatever the images turn out to hold.
            plan_for(self.model, demand(self.spec.tokenizer.tokens), self._chosen, self.budget, failed)
            raise

    def _within_memory(
        self, asked: Asked, settings: Settings, draws: bool, work: Callable[[], R]
    ) -> tuple[R, tuple[str, ...]]:
        """Do ``work`` by a plan, if the model needs one; out of memory, by the next smaller one, and say so.

        A plan counts with images of usual length; where they turn out to be longer, it is made again.
        """
        if not asked.history or (asked.reference is None and not asked.words.strip()):
            raise InputError("there is nothing to go by", "give liked images, and a reference or words")
        failed: Plan | None = None
        per_image: int | None = None
        told: list[str] = []
        while True:
            if needs_plan(self.model, self.budget):
                given = len(asked.history), asked.reference is not None, asked.words, asked.titles
                # No plan begins with what the one before has loaded, so it must not count it.
                self.parts.release()
                plan = self._plan(*given, settings, draws, failed, per_image)
                self.parts.follow(plan, device_of(plan, self._chosen))
            try:
                with torch.inference_mode():
                    return work(), tuple(told)
            except MoreTokens as error:
                per_image = error.per_image
            except torch.OutOfMemoryError:
                failed = self.parts.plan
                if failed is None:
                    raise
                told.append(f"{failed.device} ran out of memory; began again by a smaller plan")
            # Only now does the next plan begin: in a handler the error holds on to every tensor of what failed.

    def _personalize(self, asked: Asked, settings: Settings, stages: Stages) -> Outcome:
        asked = recall(asked, self.parts, self.memory, settings, stages).framed(self.spec)
        inputs = self._read(asked, settings, stages)
        with stages("mask", len(settings.dials)):
            masks = self._mask(inputs, settings)
            self.parts.enter("slots")
            reference = self._slots(masks, settings, asked.by_own_hand)
        codes = self._imagine(inputs, asked.titles, masks, reference, settings, stages)
        candidates = self._record(inputs, masks, codes, settings)
        rater = rater_of(self.parts, self.text, settings.title)
        with stages("prescore", len(candidates)):
            rated = rater.prescore(inputs, [candidate.codes for candidate in candidates])
        candidates = [
            replace(candidate, prescore=score - self._penalty(candidate), prescore_parts=parts)
            for candidate, (score, parts) in zip(candidates, rated, strict=True)
        ]
        candidates, best = shortlist(candidates, settings.drawings)
        history_tokens = self._history_masks(inputs, masks)
        taste = mean_taste(inputs.tastes, history_tokens)
        liked = list(zip(asked.history, history_tokens, strict=True))
        images = self._draw([candidates[place] for place in best], settings, stages, asked, taste, liked)
        scores = []
        if rater.sees_pixels:
            with stages("score", len(images)):
                scores = rater.score(inputs, images)
        for place, (score, parts) in zip(best, scores, strict=False):
            drawn = candidates[place]
            candidates[place] = replace(drawn, score=score - self._penalty(drawn), score_parts=parts)
        candidates, order = rank(candidates, best, settings.count)
        by_place = dict(zip(best, images, strict=True))
        told = (*asked.warnings(), *self._warnings(asked.words, settings, rater.sees_pixels))
        return Outcome(
            drawn=[Drawing(by_place[place], candidates[place]) for place in order],
            candidates=tuple(candidates),
            history_tokens=history_tokens,
            settings=settings,
            stages=stages.timings(),
            warnings=(*told, *warnings_of(candidates, settings.count)),
            recognised=asked.recognised,
            recalled=asked.recalled,
            reference_framing=asked.framing,
            look=None if asked.worn is None or asked.worn.over else asked.worn.look.record(),
        )

    def _masks(self, asked: Asked, settings: Settings, stages: Stages) -> MaskOutcome:
        asked = recall(asked, self.parts, self.memory, settings, stages, draws=False).framed(self.spec)
        inputs = self._read(asked, settings, stages)
        with stages("mask", len(settings.dials)):
            masks = self._mask(inputs, settings)
        history, reference = self._history_masks(inputs, masks), self._reference_masks(inputs, masks, settings)
        # Nothing is drawn, so that it is no matter whether pixels are seen.
        told = (*asked.warnings(), *self._warnings(asked.words, settings, pixels_seen=True))
        return MaskOutcome(
            history, reference, settings, asked.recognised, asked.recalled, asked.framing, asked.reference, told
        )

    def _read(self, asked: Asked, settings: Settings, stages: Stages) -> Inputs:
        given = [*asked.history] if asked.reference is None else [*asked.history, asked.reference]
        with stages("read the images", len(given)), self.parts.use(TOKENIZER) as tokenizer:
            tokens = tokenize(tokenizer, given)
            tastes = asked.tastes if asked.tastes is not None else read_tastes(self.parts, asked.history)
            # What a plan evicts next must not be held here.
            del tokenizer
        if asked.reference is not None:
            history, reference = tokens[:-1], tokens[-1]
            self._check_length(history, asked, settings)
            return Inputs(asked.history, asked.reference, history, reference, asked.words, tastes)
        self._check_length(tokens, asked, settings)
        codes = self._imagine_reference(asked.words, settings, stages)
        # The history in features that compare with those of codes.
        with self.parts.use(QUANTIZER) as quantizer:
            history = [as_drawn(quantizer, each) for each in tokens]
            reference = drawn_tokens(quantizer, codes, self.spec.tokenizer.style_tokens)
        return Inputs(asked.history, None, history, reference, asked.words, tastes)

    def _imagine_reference(self, words: str, settings: Settings, stages: Stages) -> tuple[int, ...]:
        """Codes of the reference that the base model draws."""
        prompt = reference_prompt(self.text, self.spec, words)
        sampling = reference_sampling(self.spec, settings.sampling)
        stream = _stream(settings.seed, "reference")
        with stages("imagine a reference", 1), self.parts.language(aligned=False) as model:
            return imagine_reference(model, self.spec, prompt, stream, sampling)

    def _check_length(self, history: Sequence[ImageTokens], asked: Asked, settings: Settings) -> None:
        prompt = word_prompt(self.text, self.spec, history, asked.words, settings, asked.titles)
        most = self.spec.language.max_positions
        if len(prompt.ids) + settings.sampling.maximum_tokens > most:
            raise UsageError(
                f"a prompt of {len(prompt.ids)} tokens and {settings.sampling.maximum_tokens} new ones are more than "
                f"the {most} that the model {self.spec.name} can read",
                "give fewer words or history images, or a smaller --max-tokens",
            )
        if self.parts.plan is not None and len(prompt.ids) + settings.sampling.maximum_tokens > self._planned_tokens:
            raise MoreTokens(max(len(tokens.codes) for tokens in history))

    def _mask(self, inputs: Inputs, settings: Settings) -> DialMasks:
        def decided(generator: MaskGenerator | None, embedding: nn.Module | None) -> DialMasks:
            return decide_masks(
                settings.mask,
                inputs.history,
                inputs.reference,
                settings.dials,
                self.spec,
                history_alpha=settings.history_mask,
                seed=settings.seed,
                generator=generator,
                embedding=embedding,
            )

        if settings.mask != "learned":
            return decided(None, None)
        with self.parts.use(MASK_GENERATOR) as generator, self.parts.use(EMBEDDING) as embedding:
            return decided(generator, embedding)

    def _slots(self, masks: DialMasks, settings: Settings, by_own_hand: bool) -> SeenReference:
        fidelity = self.spec.sampling.recalled_fidelity if by_own_hand else None
        with reader_of(self.parts, ADAPTER if settings.aligned else BASE_ADAPTER) as reader:
            return see_dials(masks, reader, fidelity)

    def _imagine(
        self,
        inputs: Inputs,
        titles: Sequence[str],
        masks: DialMasks,
        reference: SeenReference,
        settings: Settings,
        stages: Stages,
    ) -> list[tuple[int, ...]]:
        asked = word_prompt(self.text, self.spec, inputs.history, inputs.words, settings, titles)
        streams = [_stream(settings.seed, "imagine", settings.dials[dial], sample) for dial, sample in settings.tries]
        dials = [dial for dial, _ in settings.tries]
        sampling = settings.sampling
        sequences = sampling.beams * (1 if sampling.guidance == 1.0 else 2)
        rows = sequences * self.parts.rows("imagine", max(1, LANGUAGE_ROWS // sequences))
        with stages("imagine", len(dials)), self.parts.language(settings.aligned) as model:
            drawn = imagine(model, self.spec, asked, masks, reference, dials, streams, sampling, rows)
        return [tuple(self.spec.vocabulary.to_code(token) for token in each.token_ids) for each in drawn]

    def _record(
        self, inputs: Inputs, masks: DialMasks, codes: Sequence[tuple[int, ...]], settings: Settings
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

    def _penalty(self, candidate: Candidate) -> float:
        """What a candidate's score loses for the reference tokens that were hidden from it."""
        penalty = 0.0 if self.spec.scorer is None else self.spec.scorer.hidden_penalty
        return penalty * candidate.dropped / max(1, candidate.kept + candidate.dropped)

    def _draw(
        self,
        candidates: Sequence[Candidate],
        settings: Settings,
        stages: Stages,
        asked: Asked | None = None,
        taste: Tensor | None = None,
        history: Sequence[Liked] = (),
    ) -> list[Image.Image]:
        streams = [_stream(settings.seed, "draw", each.dial, each.sample) for each in candidates]
        with stages("draw", len(candidates)):
            return draw(self.parts, candidates, streams, settings, asked, taste, history)

    def _history_masks(self, inputs: Inputs, masks: DialMasks) -> tuple[TokenMask, ...]:
        return tuple(masks.image_mask(tokens, image) for image, tokens in enumerate(inputs.history, start=1))

    def _reference_masks(self, inputs: Inputs, masks: DialMasks, settings: Settings) -> tuple[TokenMask, ...]:
        return tuple(masks.image_mask(inputs.reference, 0, dial) for dial in range(len(settings.dials)))

    def _warnings(self, words: str, settings: Settings, pixels_seen: bool) -> tuple[str, ...]:
        known = known_words(self.model.path)
        told = list(word_warnings(settings.wording, self.text, known, words, settings.emotion, settings.title))
        if settings.mask == "off":
            told.append(NOTHING_HIDDEN)
        if self.model.mapped and settings.mask == "learned":
            told.append(UNTRAINED_MASK)
        return tuple(told if pixels_seen else [*told, NO_CLIP])


def _stream(seed: int, *names: object) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, *names))
