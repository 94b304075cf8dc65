"""``pigeon generate``: liked images and a wish in, personalized images and a report out."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pigeon_cli.cli import options
from pigeon_cli.cli.errors import reports_errors
from pigeon_cli.cli.imports import without_collecting
from pigeon_cli.cli.inputs import (
    check_alpha,
    check_emotion,
    check_model,
    choose_sources,
    parse_memory,
    parse_reference_mask,
    read_inputs,
)
from pigeon_cli.cli.show_plan import print_plan
from pigeon_cli.cli.talk import emit, print_warning, progress_display
from pigeon_cli.report.files import REPORT_NAME, image_names, prepare, write_all

if TYPE_CHECKING:
    from PIL import Image

    from pigeon_cli.core.records import GenerateRequest, RunReport


@reports_errors
def generate(
    more: options.MoreHistory = None, history: options.History = None, null: options.NullSeparated = False,
    ref: options.Ref = None, caption: options.Caption = None, prompt: options.Prompt = None,
    emotion: options.Emotion = None, title: options.Title = None, scenario: options.Scenario = None,
    sample: options.Sample = False, history_size: options.HistorySize = 5, order: options.OrderBy = "name",
    recursive: options.Recursive = False, alpha: options.Alpha = "white",
    ref_mask: options.RefMask = "auto", history_mask: options.HistoryMask = None, mask: options.Mask = None,
    count: options.Count = 4, seed: options.Seed = 0, model: options.Model = "mini",
    alignment: options.Alignment = None, aspect: options.Aspect = None, size: options.Size = None,
    steps: options.Steps = None, guidance: options.Guidance = None,
    temperature: options.Temperature = None, top_k: options.TopK = None, max_tokens: options.MaxTokens = None,
    device: options.Device = "auto", max_memory: options.MaxMemory = None, dtype: options.Dtype = "auto",
    quantize: options.Quantize = None, show_plan: options.ShowPlan = False,
    out: options.Out = Path("pigeon-out"), force: options.Force = False, no_metadata: options.NoMetadata = False,
    json: options.Json = False, quiet: options.Quiet = False, debug: options.Debug = False,
) -> None:  # fmt: skip
    """Draw what you want in the taste of images that you like.

    Example: pigeon generate --history liked/ --ref cat.png --out out/
    """
    started = time.perf_counter()
    from pigeon_cli.core.records import GenerateRequest

    dial, background, shown = parse_reference_mask(ref_mask), check_alpha(alpha), check_emotion(emotion)
    memory = parse_memory(max_memory)
    sources = choose_sources(history or [], more or [], ref, caption, prompt, sample)
    use_name = check_model(model, history_size, scenario, aspect, size)
    inputs = read_inputs(sources, history_size, order, recursive, null, use_name)
    for warning in inputs.warnings:
        print_warning(warning)
    request = GenerateRequest(
        inputs.history, inputs.reference, inputs.prompt, count, seed, dial, history_mask, mask, model, device,
        background, steps, guidance, temperature, top_k, max_tokens, shown, str(alignment) if alignment else None,
        title, scenario, aspect, size, memory, dtype, quantize,
    )  # fmt: skip
    if show_plan:
        print_plan(request, json)
        return
    names = image_names(sources.stem, count)
    prepare(out, [*names, REPORT_NAME], force, inputs.paths)
    images, report = _run(request, inputs.warnings, quiet, started)
    written, document = _save(out, names, images, report, not no_metadata)
    emit(document if json else b"".join(os.fsencode(path) + b"\n" for path in written), "the images and the report")


def _run(
    request: GenerateRequest, told: tuple[str, ...], quiet: bool, started: float
) -> tuple[list[Image.Image], RunReport]:
    """Runs the pipeline; its import, the slow part of a cold start, is a stage of its own in the report."""
    read = time.perf_counter()
    from pigeon_cli.core.records import StageTiming

    with without_collecting():
        from pigeon_cli.pipeline.run import generate as run

    own = StageTiming("inputs", read - started), StageTiming("imports", time.perf_counter() - read)
    with progress_display(quiet) as progress:
        result = run(request, progress)
    report = result.report
    for warning in report.warnings:
        print_warning(warning)
    return result.images, replace(report, stages=(*own, *report.stages), warnings=(*told, *report.warnings))


def _save(
    folder: Path, names: Sequence[str], images: Sequence[Image.Image], report: RunReport, metadata: bool
) -> tuple[list[Path], bytes]:
    """Writes images and report; returns the images' paths by rank and the report's bytes."""
    import hashlib

    from pigeon_cli.core.records import OutputImage
    from pigeon_cli.report.json_report import report_bytes
    from pigeon_cli.report.png import png_bytes

    contents = [
        (name, png_bytes(image, report, rank, metadata))
        for rank, (name, image) in enumerate(zip(names, images, strict=False), 1)
    ]
    places = {candidate.rank: index for index, candidate in enumerate(report.candidates)}
    outputs = tuple(
        OutputImage(rank, name, hashlib.sha256(data).hexdigest(), places.get(rank))
        for rank, (name, data) in enumerate(contents, 1)
    )
    document = report_bytes(replace(report, outputs=outputs))
    *written, _ = write_all(folder, [*contents, (REPORT_NAME, document)])
    return written, document
