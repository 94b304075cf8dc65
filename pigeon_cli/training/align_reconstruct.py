"""``pigeon align reconstruct``: stage 1 into the model's own files, or into an alignment of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pigeon_cli.core.errors import UsageError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.training.alignments import (
    RUN_FOLDER,
    AlignOptions,
    begin,
    check_alignable,
    finish,
    loop_settings,
    origin,
    recorded,
)
from pigeon_cli.training.data.people import is_icon_dataset
from pigeon_cli.training.loop import run_training
from pigeon_cli.training.processes import Processes, own_device
from pigeon_cli.training.reconstruct_material import IconMaterial, PeopleMaterial, ReconstructOptions
from pigeon_cli.weights.store import BUNDLED, ModelFolder, locate_model

PARENTS = ("tokenizer", "decoder", "base_adapter")


def align_reconstruct(own: ReconstructOptions, options: AlignOptions, say: Callable[[str], None]) -> dict[str, float]:
    """Stage 1; returns the last figures. Errors are :class:`PigeonError` subclasses."""
    if own.runs is None and options.out is None:
        raise UsageError("there is no folder for the run", "add --out DIR for an alignment, or --runs DIR")
    if options.out is None and options.model in BUNDLED:
        raise UsageError(f"the bundled {options.model} is not written to", "add --out DIR for an alignment of its own")
    check_alignable(options.model)
    device = own_device(choose_device(options.device))
    say(f"reconstruct: {device.reason}, {torch.get_num_threads()} threads")
    folder = locate_model(options.model)
    runs = own.runs or Path(options.out or ".") / RUN_FOLDER
    run_folder = runs / "reconstruct" if own.runs is not None else runs
    kind = IconMaterial if is_icon_dataset(own.data) else PeopleMaterial
    material = kind(own, folder, device, options, runs, say)
    settings = loop_settings("reconstruct", folder, options, run_folder, material.count)
    settled: dict[str, Any] = {**recorded(settings), "target": material.target}
    record = origin("reconstruct", folder, PARENTS, material.sha256, settled)
    processes = Processes(device)
    if processes.is_main:
        begin(settings, record)
        material.encode()
    processes.wait()
    torch.manual_seed(stream_seed(options.seed, "reconstruct", "first weights"))
    task = material.task(settings)
    if own.init_from is not None:
        task.start_from(ModelFolder(own.init_from))
    figures = run_training(task, settings, device, say)
    if processes.is_main:
        finish(settings, record, figures, options.out)
    return figures
