"""``pigeon generate`` from request to report (DESIGN.md section 2 and "The shape of a fast run")."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image

from pigeon_cli import __version__
from pigeon_cli.core.errors import InputError, UsageError
from pigeon_cli.core.records import DeviceRecord, GenerateRequest, ModelRecord, RunReport, StageTiming, WeightsFile
from pigeon_cli.engine.devices import DeviceChoice, choose_device
from pigeon_cli.engine.memory import peak_memory
from pigeon_cli.history.intake import load_image
from pigeon_cli.history.preprocess import to_rgb
from pigeon_cli.pipeline.session import COMPUTE_DTYPE, Outcome, Session
from pigeon_cli.pipeline.settings import choices_of
from pigeon_cli.pipeline.stages import Progress, Stages
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.store import PARTS, ModelFolder, find_model

LIBRARIES = ("torch", "transformers", "diffusers", "safetensors", "sentencepiece", "pillow")


@dataclass(frozen=True)
class GenerateResult:
    """The chosen images, best first, and what there is to tell about them."""

    images: list[Image.Image]
    report: RunReport


def generate(request: GenerateRequest, progress: Progress) -> GenerateResult:
    """Draw what ``request`` asks for; raises the errors of :mod:`pigeon_cli.core.errors`."""
    device = choose_device(request.device)
    folder = find_model(request.model)
    check_history(request, folder)
    session = Session(folder, device)
    stages = Stages(session.parts, progress)
    with stages("open the images", len(request.used_history)):
        history = [open_unchanged(image.path, image.sha256, request.alpha) for image in request.used_history]
        wish = request.reference
        reference = None if wish is None else open_unchanged(wish.path, wish.sha256, request.alpha)
    words = wish.words if wish else request.prompt or ""
    outcome = session.personalize(history, reference, words, progress, **choices_of(request))
    with stages("hash the weights", len(PARTS)):
        model = model_record(folder)
    opened, hashed = stages.timings()[1:]
    report = report_of(request, outcome, device, model, (opened, *outcome.stages, hashed))
    return GenerateResult(outcome.images, report)


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
    used = outcome.settings
    settings = replace(
        request,
        history_mask=used.history_mask,
        mask=used.mask,
        steps=used.steps,
        guidance=used.guidance,
        temperature=used.sampling.temperature,
        top_k=used.sampling.top_k,
        max_tokens=used.sampling.maximum_tokens,
    ).settings()
    dtype = str(COMPUTE_DTYPE).removeprefix("torch.")
    return RunReport(
        model=model,
        device=DeviceRecord(str(device.device), device.reason, dtype, torch.get_num_threads()),
        settings=settings,
        history=request.history,
        reference=request.reference,
        prompt=request.prompt,
        candidates=outcome.candidates,
        history_tokens=outcome.history_tokens,
        stages=tuple(stages),
        peak_memory_bytes=peak_memory(),
        versions={
            "pigeon": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
        warnings=outcome.warnings,
    )
