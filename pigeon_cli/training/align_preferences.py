"""``pigeon align preferences``: from a pairs file to an alignment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pigeon_cli.core.errors import UsageError
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
from pigeon_cli.training.code_sheet import pair_sheet
from pigeon_cli.training.loop import run_training
from pigeon_cli.training.pairs import read_pairs
from pigeon_cli.training.processes import Processes, own_device
from pigeon_cli.training.stages import frozen_tokenizer, text_processor
from pigeon_cli.training.tasks.preferences import BETA, PreferencesTask, split_pairs
from pigeon_cli.weights.alignment_folder import with_alignment
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.store import ALIGNED_PARTS, ModelFolder, find_folder


def align_preferences(pairs: Path, options: AlignOptions, say: Callable[[str], None]) -> dict[str, float]:
    """Stage 2 on the pairs file ``pairs``; returns the last figures. Errors are :class:`PigeonError` subclasses."""
    device = own_device(choose_device(options.device))
    assert options.out is not None
    say(f"preferences: {device.reason}, {torch.get_num_threads()} threads")
    check_alignable(options.model)
    model = find_folder(options.model)
    # Without an alignment it begins from the one in the model's folder.
    if (options.alignment or model.path).resolve() == options.out.resolve():
        raise UsageError("--out would overwrite the alignment that it begins from", "choose another folder with --out")
    folder = with_alignment(model, options.alignment)
    read = read_pairs(pairs, folder.spec)
    held_out, train = split_pairs(read)
    say(f"preferences: {len(train)} pairs, {len(held_out)} held out")
    settings = loop_settings("preferences", folder, options, options.out / RUN_FOLDER, len(train))
    settled = {**recorded(settings), "beta": BETA}
    record = origin("preferences", folder, ("tokenizer", "decoder", *ALIGNED_PARTS), sha256_of(pairs), settled)
    is_main = Processes(device).is_main
    if is_main:
        begin(settings, record)
    task = PreferencesTask(
        folder,
        frozen_tokenizer(folder, device),
        text_processor(folder),
        read,
        pair_sheet(folder, device, held_out),
        settings.batch,
        ModelFolder(options.out),
        options.gradient_checkpointing,
    )
    figures = run_training(task, settings, device, say)
    if is_main:
        finish(settings, record, figures, options.out)
    return figures
