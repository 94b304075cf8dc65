"""``pigeon align reconstruct``: stage 1 into the model's own files, or into an alignment of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pigeon_cli.core.errors import UsageError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.training.alignments import RUN_FOLDER, AlignOptions, begin, finish, loop_settings, origin, recorded
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.code_cache import build_code_cache
from pigeon_cli.training.data.dataset import INDEX_FILE, load_dataset
from pigeon_cli.training.loop import run_training
from pigeon_cli.training.processes import Processes, own_device
from pigeon_cli.training.stages import StageOptions, build_task, frozen_tokenizer
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.store import ModelFolder, locate_model

PARENTS = ("tokenizer", "decoder", "base_adapter")


@dataclass(frozen=True)
class ReconstructOptions:
    """What stage 1 alone is told."""

    data: Path
    runs: Path | None = None
    """Folder of run folders; ``RUNS/codes`` holds encoded icons. Default: within the alignment."""
    target: str = "mixed"
    looks: int = 40
    cells: int = 384
    """Where icons are yet to be encoded, looks per set and pictures per look."""
    init_from: Path | None = None


def align_reconstruct(own: ReconstructOptions, options: AlignOptions, say: Callable[[str], None]) -> dict[str, float]:
    """Stage 1; returns the last figures. Errors are :class:`PigeonError` subclasses."""
    if own.runs is None and options.out is None:
        raise UsageError("there is no folder for the run", "add --out DIR for an alignment, or --runs DIR")
    device = own_device(choose_device(options.device))
    say(f"reconstruct: {device.reason}, {torch.get_num_threads()} threads")
    folder = locate_model(options.model)
    runs = own.runs or Path(options.out or ".") / RUN_FOLDER
    run_folder = runs / "reconstruct" if own.runs is not None else runs
    settings = loop_settings("reconstruct", folder, options, run_folder)
    batches = IconBatches(load_dataset(own.data), device.device)
    settled: dict[str, Any] = {**recorded(settings), "target": own.target}
    record = origin("reconstruct", folder, PARENTS, sha256_of(own.data / INDEX_FILE), settled)
    processes = Processes(device)
    if processes.is_main:
        begin(settings, record)
        if options.out is not None:
            _encode_once(own, options, folder, runs, batches, say)
    processes.wait()
    torch.manual_seed(stream_seed(options.seed, "reconstruct", "first weights"))
    stage = StageOptions(own.data, folder.path, runs, target=own.target, out=options.out)
    task = build_task("reconstruct", folder, batches, stage, settings, device)
    if own.init_from is not None:
        task.start_from(ModelFolder(own.init_from))
    figures = run_training(task, settings, device, say)
    if processes.is_main:
        finish(settings, record, figures, options.out)
    return figures


def _encode_once(
    own: ReconstructOptions,
    options: AlignOptions,
    folder: ModelFolder,
    runs: Path,
    batches: IconBatches,
    say: Callable[[str], None],
) -> None:
    """What ``pigeon train encode`` does, where it was not done."""
    if not (runs / "codes" / "looks.jsonl").is_file():
        tokenizer = frozen_tokenizer(folder, choose_device(options.device))
        build_code_cache(tokenizer, batches, runs / "codes", own.looks, own.cells, options.seed, say)
