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
from pigeon_cli.core.errors import InputError, UsageError
from pigeon_cli.core.records import (
    DeviceRecord,
    GenerateRequest,
    InspectedImage,
    MaskReport,
    ModelRecord,
    RunReport,
    StageTiming,
    WeightsFile,
)
from pigeon_cli.engine.devices import DeviceChoice, choose_device
from pigeon_cli.engine.memory import peak_memory
from pigeon_cli.history.intake import load_image
from pigeon_cli.history.preprocess import to_rgb
from pigeon_cli.pipeline.session import COMPUTE_DTYPE, MaskOutcome, Outcome, Session
from pigeon_cli.pipeline.settings import Settings, choices_of
from pigeon_cli.pipeline.stages import Progress, Stages
from pigeon_cli.weights.alignment_folder import with_alignment
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.store import PARTS, ModelFolder, find_model

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
    """The images in the report's order as RGB, ``None`` for a reference imagined from words, and their masks."""

    images: list[Image.Image | None]
    report: MaskReport


def generate(request: GenerateRequest, progress: Progress) -> GenerateResult:
    """Draw what ``request`` asks for; raises the errors of :mod:`pigeon_cli.core.errors`."""
    session = open_session(request)
    stages = Stages(session.parts, progress)
    history, reference = open_images(request, stages)
    outcome = session.personalize(history, reference, request.words, progress, **choices_of(request))
    with stages("hash the weights", len(PARTS)):
        model = model_record(session.folder)
    opened, hashed = stages.timings()[1:]
    report = report_of(request, outcome, session.device, model, (opened, *outcome.stages, hashed))
    return GenerateResult(outcome.images, report)


def inspect_masks(request: GenerateRequest, progress: Progress) -> InspectResult:
    """The masks with which :func:`generate` would answer ``request`` at its one dial position; the same errors."""
    session = open_session(request)
    stages = Stages(session.parts, progress)
    history, reference = open_images(request, stages)
    outcome = session.masks(history, reference, request.words, progress, **choices_of(request))
    with stages("hash the weights", len(PARTS)):
        model = model_record(session.folder)
    return InspectResult([*history, reference], mask_report_of(request, outcome, session, model))


def open_session(request: GenerateRequest) -> Session:
    """The request's model on its device; nothing is loaded yet."""
    device = choose_device(request.device)
    folder = with_alignment(find_model(request.model), Path(request.alignment) if request.alignment else None)
    check_history(request, folder)
    return Session(folder, device)


def open_images(request: GenerateRequest, stages: Stages) -> tuple[list[Image.Image], Image.Image | None]:
    """The used history and the reference, if there is one, as RGB."""
    with stages("open the images", len(request.used_history)):
        history = [open_unchanged(image.path, image.sha256, request.alpha) for image in request.used_history]
        wish = request.reference
        return history, None if wish is None else open_unchanged(wish.path, wish.sha256, request.alpha)


def check_history(request: GenerateRequest, folder: ModelFolder) -> None:
    """Raises :class:`UsageError` for more history images than the model was made for."""
    limit, used = folder.spec.history_size, len(request.used_history)
    if used > limit:
        raise UsageError(
            f"the model {folder.spec.name} reads {limit} history images, and there are {used}",
            f"add --history-size {limit}",
        )


def open_unchanged(path: Path, sha256: str | None, alpha: str) -> Image.Image:
    """The image as RGB; raises :class:`InputError` when its bytes are not those of ``sha256`` any more."""
    loaded = load_image(path)
    if sha256 is not None and loaded.sha256 != sha256:
        raise InputError(f"the image {path} changed while it was being used", "start again when nothing writes to it")
    return to_rgb(loaded.image, alpha)


def model_record(folder: ModelFolder) -> ModelRecord:
    """The model's name and the hash of each of its files."""
    return ModelRecord(folder.spec.name, tuple(WeightsFile(path.name, sha256_of(path)) for path in folder.files))


def report_of(
    request: GenerateRequest,
    outcome: Outcome,
    device: DeviceChoice,
    model: ModelRecord,
    stages: Sequence[StageTiming],
) -> RunReport:
    """Everything that ``report.json`` says about a run, files that are still to be written excepted."""
    return RunReport(
        model=model,
        device=device_record(device),
        settings=settings_used(request, outcome.settings),
        history=request.history,
        reference=request.reference,
        prompt=request.prompt,
        candidates=outcome.candidates,
        history_tokens=outcome.history_tokens,
        stages=tuple(stages),
        peak_memory_bytes=peak_memory(),
        versions=versions(),
        warnings=outcome.warnings,
    )


def mask_report_of(request: GenerateRequest, outcome: MaskOutcome, session: Session, model: ModelRecord) -> MaskReport:
    """Everything that ``masks.json`` says, names of files that are still to be written excepted."""
    images = [
        InspectedImage("history", image.path.name, image.sha256, mask)
        for image, mask in zip(request.used_history, outcome.history_tokens, strict=True)
    ]
    wish = request.reference
    name, sha256 = (wish.path.name, wish.sha256) if wish else (None, None)
    settings = settings_used(request, outcome.settings)
    return MaskReport(
        model=model,
        device=device_record(session.device),
        settings={each: settings[each] for each in MASK_SETTINGS},
        history=request.history,
        reference=wish,
        prompt=request.prompt,
        grid=session.spec.tokenizer.grid,
        images=(*images, InspectedImage("reference", name, sha256, outcome.reference_tokens[0])),
        versions=versions(),
    )


def settings_used(request: GenerateRequest, used: Settings) -> dict[str, Any]:
    """The request's settings with the model's own values filled in."""
    return replace(
        request,
        history_mask=used.history_mask,
        mask=used.mask,
        steps=used.steps,
        guidance=used.guidance,
        temperature=used.sampling.temperature,
        top_k=used.sampling.top_k,
        max_tokens=used.sampling.maximum_tokens,
    ).settings()


def device_record(device: DeviceChoice) -> DeviceRecord:
    """Where this process computes, and in which type."""
    dtype = str(COMPUTE_DTYPE).removeprefix("torch.")
    return DeviceRecord(str(device.device), device.reason, dtype, torch.get_num_threads())


def versions() -> dict[str, str]:
    """This program, Python and the libraries whose version can change a result."""
    own = {"pigeon": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in LIBRARIES}
