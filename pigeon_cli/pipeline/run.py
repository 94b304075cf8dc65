"""``pigeon generate`` and ``pigeon inspect-mask`` from request to report (DESIGN.md section 2)."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pigeon_cli import __version__
from pigeon_cli.core.errors import InputError
from pigeon_cli.core.records import (
    DeviceRecord,
    GenerateRequest,
    InspectedImage,
    MaskReport,
    ModelRecord,
    RunReport,
    StageTiming,
)
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.engine.memory import peak_memory
from pigeon_cli.engine.plan import Plan
from pigeon_cli.history.intake import load_image
from pigeon_cli.history.preprocess import to_rgb
from pigeon_cli.history.words import name_title, title_of
from pigeon_cli.pipeline.outcomes import MaskOutcome, Outcome
from pigeon_cli.pipeline.planning import Budget
from pigeon_cli.pipeline.session import Session
from pigeon_cli.pipeline.settings import Settings, choices_of, resolve
from pigeon_cli.pipeline.sizes import check_history_size
from pigeon_cli.pipeline.stages import Progress, Stages
from pigeon_cli.pipeline.words import has_place
from pigeon_cli.weights.store import PARTS, find_model
from pigeon_cli.weights.stored_model import StoredModel

LIBRARIES = ("torch", "transformers", "diffusers", "safetensors", "sentencepiece", "pillow")
MASK_SETTINGS = (
    "seed", "reference_mask", "history_mask", "mask", "model", "device", "alpha", "temperature", "top_k", "max_tokens",
)  # fmt: skip
"""What decides a mask; the last three only where the reference is imagined from words."""


@dataclass(frozen=True)
class GenerateResult:
    """The chosen images, best first, and what there is to tell about them."""

    images: list[Image.Image]
    report: RunReport


@dataclass(frozen=True)
class InspectResult:
    """The images in the report's order as they were read, RGB, ``None`` for a reference imagined from words, and their
    masks."""

    images: list[Image.Image | None]
    report: MaskReport


def generate(request: GenerateRequest, progress: Progress) -> GenerateResult:
    """Draw what ``request`` asks for; raises the errors of :mod:`pigeon_cli.core.errors`."""
    session = open_session(request)
    request = with_titles(request, session.model)
    stages = Stages(session.parts, progress)
    history, reference = open_images(request, stages)
    choices = choices_of(request)
    outcome = session.personalize(history, reference, request.words, progress, titles_of(request), **choices)
    with stages("hash the weights", len(PARTS)):
        model = session.model.record()
    opened, hashed = stages.timings()[1:]
    report = report_of(request, outcome, session, model, (opened, *outcome.stages, hashed))
    return GenerateResult(outcome.images, report)


def plan(request: GenerateRequest) -> Plan:
    """What :func:`generate` would load, run and evict for ``request``, and what it takes; nothing is drawn."""
    session = open_session(request)
    request = with_titles(request, session.model)
    history, choices = len(request.used_history), choices_of(request)
    return session.plan(history, request.reference is not None, request.words, titles_of(request), **choices)


def inspect_masks(request: GenerateRequest, progress: Progress) -> InspectResult:
    """The masks with which :func:`generate` would answer ``request`` at its one dial position; the same errors."""
    session = open_session(request)
    stages = Stages(session.parts, progress)
    history, reference = open_images(request, stages)
    outcome = session.masks(history, reference, request.words, progress, **choices_of(request))
    with stages("hash the weights", len(PARTS)):
        model = session.model.record()
    return InspectResult([*history, outcome.reference], mask_report_of(request, outcome, session, model))


def open_session(request: GenerateRequest) -> Session:
    """The request's model on its device, within its budget; nothing is loaded yet."""
    device, model = choose_device(request.device), find_model(request.model)
    if request.alignment is not None:
        model = model.aligned_by(Path(request.alignment))
    check_history_size(model.spec, len(request.used_history))
    budget = Budget(request.max_memory, request.dtype, request.quantize)
    return Session(model, device, budget)


def with_titles(request: GenerateRequest, model: StoredModel) -> GenerateRequest:
    """The request with what its images are called, where the wording has a place for that and nothing was said."""
    wording = resolve(model, choices_of(request)).wording
    if not has_place(wording, "title"):
        return request
    history = tuple(replace(image, title=title_of(image.path)) for image in request.history)
    title, wish = request.title, request.reference
    if title is None and wish is not None:
        # Its sidecar file holds words about it, not its title.
        title = name_title(wish.path)
        if wish.words_from == "file name":
            wish = replace(wish, words="", words_from="none")
    return replace(request, history=history, title=title, reference=wish)


def titles_of(request: GenerateRequest) -> tuple[str, ...]:
    """Titles of the used history; empty where none is wanted."""
    titles = tuple(image.title for image in request.used_history)
    return titles if any(titles) else ()


def open_images(request: GenerateRequest, stages: Stages) -> tuple[list[Image.Image], Image.Image | None]:
    """The used history and the reference, if there is one, as RGB."""
    with stages("open the images", len(request.used_history)):
        history = [open_unchanged(image.path, image.sha256, request.alpha) for image in request.used_history]
        wish = request.reference
        return history, None if wish is None else open_unchanged(wish.path, wish.sha256, request.alpha)


def open_unchanged(path: Path, sha256: str | None, alpha: str) -> Image.Image:
    """The image as RGB; raises :class:`InputError` when its bytes are not those of ``sha256`` any more."""
    loaded = load_image(path)
    if sha256 is not None and loaded.sha256 != sha256:
        raise InputError(f"the image {path} changed while it was being used", "start again when nothing writes to it")
    return to_rgb(loaded.image, alpha)


def report_of(
    request: GenerateRequest,
    outcome: Outcome,
    session: Session,
    model: ModelRecord,
    stages: Sequence[StageTiming],
) -> RunReport:
    """Everything that ``report.json`` says about a run, files that are still to be written excepted."""
    return RunReport(
        model=model,
        device=device_record(session),
        settings=settings_used(request, outcome.settings),
        history=request.history,
        reference=request.reference,
        prompt=request.prompt,
        candidates=outcome.candidates,
        recognised=outcome.recognised,
        recalled=outcome.recalled,
        reference_framing=outcome.reference_framing,
        look=outcome.look,
        history_tokens=outcome.history_tokens,
        stages=tuple(stages),
        peak_memory_bytes=peak_memory(),
        versions=versions(),
        warnings=(*unused_options(request, session.model), *outcome.warnings),
        plan=None if outcome.plan is None else outcome.plan.as_json(),
    )


def unused_options(request: GenerateRequest, model: StoredModel) -> tuple[str, ...]:
    """Sentences about options that the model has no use for."""
    if request.scenario in (None, *model.wordings):
        return ()
    return (f"the model {model.spec.name} does not use --scenario: it has one wording",)


def mask_report_of(request: GenerateRequest, outcome: MaskOutcome, session: Session, model: ModelRecord) -> MaskReport:
    """Everything that ``masks.json`` says, names of files that are still to be written excepted."""
    images = [
        InspectedImage("history", image.path.name, image.sha256, mask)
        for image, mask in zip(request.used_history, outcome.history_tokens, strict=True)
    ]
    wish = request.reference
    # Where a drawing was recalled it is not the file's tokens that were looked at.
    name, sha256 = (wish.path.name, wish.sha256) if wish and outcome.recalled is None else (None, None)
    settings = settings_used(request, outcome.settings)
    return MaskReport(
        model=model,
        device=device_record(session),
        settings={each: settings[each] for each in MASK_SETTINGS},
        history=request.history,
        reference=wish,
        prompt=request.prompt,
        grid=session.spec.tokenizer.grid,
        images=(*images, InspectedImage("reference", name, sha256, outcome.reference_tokens[0])),
        recognised=outcome.recognised,
        recalled=outcome.recalled,
        reference_framing=outcome.reference_framing,
        versions=versions(),
        warnings=outcome.warnings,
    )


def settings_used(request: GenerateRequest, used: Settings) -> dict[str, Any]:
    """The request's settings with the model's own values filled in."""
    return replace(
        request,
        history_mask=used.history_mask,
        mask=used.mask,
        title=used.title or None,
        size=max(used.size),
        steps=used.steps,
        guidance=used.guidance,
        temperature=used.sampling.temperature,
        top_k=used.sampling.top_k,
        max_tokens=used.sampling.maximum_tokens,
    ).settings()


def device_record(session: Session) -> DeviceRecord:
    """Where this process computes, and in which type."""
    device = session.device
    return DeviceRecord(str(device.device), device.reason, str(session.parts.precision), torch.get_num_threads())


def versions() -> dict[str, str]:
    """This program, Python and the libraries whose version can change a result."""
    own = {"pigeon": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in LIBRARIES}
