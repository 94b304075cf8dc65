"""What a call may choose, and the choice with no default left open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TypedDict

from pigeon_cli.core.configs import SamplingConfig
from pigeon_cli.core.records import GenerateRequest
from pigeon_cli.history.words import plain_title
from pigeon_cli.pipeline.sizes import drawing_size
from pigeon_cli.weights.stored_model import StoredModel

AUTO_DIALS = tuple(step / 10 for step in range(11))
"""Dial positions that ``auto`` tries (DESIGN.md section 2, "Selection")."""
SPARE_DRAWINGS = 2
"""How many more images are drawn than asked for, so that the score of drawn pixels has a choice."""


class Choices(TypedDict, total=False):
    """What a caller may say; a missing value or ``None`` stands for the model's own."""

    dials: Sequence[float] | None
    """Dial positions (alpha_r) to try; ``None`` is ``auto``."""
    samples: int | None
    """Per dial position; by default as many as ``count`` needs, at given positions some to spare, and with ``auto`` at
    least the model's ``auto_samples``."""
    count: int
    seed: int
    emotion: str | None
    """What the drawing should express, where the model's wording has a place for it."""
    title: str | None
    """What the drawing is called, likewise."""
    scenario: str | None
    """The wording of the prompt, where the model has several."""
    aspect: str | None
    size: int | None
    """The long side in pixels."""
    mask: str | None
    history_mask: float | None
    aligned: bool
    """False draws with the base language model, without LoRA."""
    steps: int | None
    guidance: float | None
    temperature: float | None
    top_k: int | None
    max_tokens: int | None


@dataclass(frozen=True)
class Settings:
    """Everything that decides a drawing apart from the inputs."""

    dials: tuple[float, ...]
    samples: int
    count: int
    seed: int
    emotion: str
    title: str
    wording: str
    size: tuple[int, int]
    """Height and width in pixels."""
    mask: str
    history_mask: float
    aligned: bool
    steps: int
    guidance: float
    sampling: SamplingConfig
    spare: int = SPARE_DRAWINGS
    """How many more images are drawn than asked for."""

    @property
    def drawings(self) -> int:
        """Images to draw, if so many candidates differ."""
        return self.count + self.spare

    @property
    def tries(self) -> list[tuple[int, int]]:
        """(number of the dial position, number of the sample) of every candidate."""
        return [(dial, sample) for sample in range(self.samples) for dial in range(len(self.dials))]


def resolve(model: StoredModel, choices: Choices) -> Settings:
    """``choices`` with the model's own values filled in; raises :class:`UsageError` for a size that it cannot draw."""
    spec, scenario = model.spec, choices.get("scenario")
    wording = scenario if scenario in model.wordings else model.wordings[0]
    # Without anything that looks at drawn pixels, spare ones would be drawn for nothing.
    spare = 0 if spec.scorer is None and model.clip is None else SPARE_DRAWINGS
    dials, samples = choices.get("dials"), choices.get("samples")
    positions = AUTO_DIALS if dials is None else tuple(float(dial) for dial in dials)
    count = choices.get("count", 1)
    least, needed = (spec.sampling.auto_samples, count) if dials is None else (1, count + SPARE_DRAWINGS)
    return Settings(
        dials=positions,
        samples=max(least, ceil(needed / len(positions))) if samples is None else samples,
        count=count,
        seed=choices.get("seed", 0),
        emotion=choices.get("emotion") or "",
        title=plain_title(choices.get("title") or ""),
        wording=wording,
        size=drawing_size(spec.diffusion, wording, choices.get("aspect"), choices.get("size")),
        spare=spare,
        mask=choices.get("mask") or spec.default_mask,
        history_mask=_or(choices.get("history_mask"), spec.history_mask),
        aligned=choices.get("aligned", True),
        steps=choices.get("steps") or spec.diffusion.steps,
        guidance=_or(choices.get("guidance"), spec.diffusion.guidance),
        sampling=change_sampling(
            spec.sampling, choices.get("temperature"), choices.get("top_k"), choices.get("max_tokens")
        ),
    )


def choices_of(request: GenerateRequest) -> Choices:
    """What ``pigeon generate`` was told."""
    return Choices(
        dials=None if request.reference_mask is None else (request.reference_mask,),
        count=request.count,
        seed=request.seed,
        emotion=request.emotion,
        title=request.title,
        scenario=request.scenario,
        aspect=request.aspect,
        size=request.size,
        mask=request.mask,
        history_mask=request.history_mask,
        steps=request.steps,
        guidance=request.guidance,
        temperature=request.temperature,
        top_k=request.top_k,
        max_tokens=request.max_tokens,
    )


def change_sampling(
    sampling: SamplingConfig, temperature: float | None, top_k: int | None, max_tokens: int | None
) -> SamplingConfig:
    """The model's sampling with the user's changes; ``None`` leaves a value as it is."""
    limit = sampling.maximum_tokens if max_tokens is None else max_tokens
    return replace(
        sampling,
        temperature=sampling.temperature if temperature is None else temperature,
        top_k=sampling.top_k if top_k is None else top_k,
        maximum_tokens=limit,
        minimum_tokens=min(sampling.minimum_tokens, limit),
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
