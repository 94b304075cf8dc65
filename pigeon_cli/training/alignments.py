"""What ``pigeon align`` starts: defaults by model size, run folders, and the record of what came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import InputError, UsageError
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.report.files import write_all
from pigeon_cli.training.loop import LoopSettings, run_training
from pigeon_cli.training.pair_sheet import PairSheet
from pigeon_cli.training.pairs import read_pairs
from pigeon_cli.training.stages import StageDefaults, frozen_tokenizer, text_processor
from pigeon_cli.training.tasks.preferences import BETA, PreferencesTask, split_pairs
from pigeon_cli.weights.alignment_folder import AlignmentRecord, with_alignment, write_record
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.store import ALIGNED_PARTS, ModelFolder, find_model

RUN_FOLDER: Final = "run"
"""Within the alignment: checkpoint, metrics, sheets. The alignment works without it."""
BEGUN: Final = "begun.json"
"""Within the run's folder: what it began from, so that it is resumed with nothing else."""
MINI_PREFERENCES: Final = StageDefaults(300, 16, 2e-4, warmup=20)
PAPER_PREFERENCES: Final = StageDefaults(1000, 8, 5e-6, warmup=20)
"""The paper's rate and batch; it names no length."""


@dataclass(frozen=True)
class AlignOptions:
    """What the command line passes on to a stage of alignment; ``None`` takes the model's default."""

    model: str
    out: Path
    alignment: Path | None = None
    steps: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    evaluate_every: int = 100
    seed: int = 0
    device: str = "auto"
    resume: bool = False


def align_preferences(pairs: Path, options: AlignOptions, say: Callable[[str], None]) -> dict[str, float]:
    """Stage 2 on the pairs file ``pairs``; returns the last figures. Errors are :class:`PigeonError` subclasses."""
    device = choose_device(options.device)
    say(f"preferences: {device.reason}, {torch.get_num_threads()} threads")
    if options.alignment is not None and options.alignment.resolve() == options.out.resolve():
        raise UsageError("--out would overwrite the alignment that it begins from", "choose another folder with --out")
    folder = with_alignment(find_model(options.model), options.alignment)
    read = read_pairs(pairs, folder.spec)
    held_out, train = split_pairs(read)
    say(f"preferences: {len(train)} pairs, {len(held_out)} held out")
    settings = loop_settings("preferences", preference_defaults(folder.spec), options)
    record = AlignmentRecord(
        stage="preferences",
        base=folder.spec.name,
        base_sha256=sha256_of(folder.part("language")),
        parents={part: sha256_of(folder.part(part)) for part in ("tokenizer", "decoder", *ALIGNED_PARTS)},
        data_sha256=sha256_of(pairs),
        settings={**recorded(settings), "beta": BETA},
        figures={},
    )
    begin(settings, record)
    task = PreferencesTask(
        folder,
        frozen_tokenizer(folder, device),
        text_processor(folder),
        read,
        PairSheet(folder, device, held_out),
        settings.batch,
        ModelFolder(options.out),
    )
    figures = run_training(task, settings, device, say)
    write_record(options.out, replace(record, figures=figures))
    return figures


def preference_defaults(spec: ModelSpec) -> StageDefaults:
    """Stage 2 of ``mini`` or, for the published sizes, the paper's."""
    return MINI_PREFERENCES if spec.name == "mini" else PAPER_PREFERENCES


def loop_settings(stage: str, defaults: StageDefaults, options: AlignOptions) -> LoopSettings:
    """The loop's settings: the stage's defaults where the options leave them open."""
    return LoopSettings(
        run_folder=options.out / RUN_FOLDER,
        steps=options.steps or defaults.steps,
        batch=options.batch or defaults.batch,
        learning_rate=options.learning_rate or defaults.learning_rate,
        seed=options.seed,
        warmup=defaults.warmup,
        evaluate_every=options.evaluate_every,
        resume=options.resume,
    )


def recorded(settings: LoopSettings) -> dict[str, Any]:
    """The settings that decide what is learned."""
    names = ("steps", "batch", "learning_rate", "seed", "warmup", "weight_decay", "gradient_clip")
    return {name: getattr(settings, name) for name in names}


def begin(settings: LoopSettings, record: AlignmentRecord) -> None:
    """Write down what the run begins from; :class:`InputError` where it is resumed with something else."""
    origin: Mapping[str, Any] = {
        "stage": record.stage,
        "base_sha256": record.base_sha256,
        "parents": record.parents,
        "data_sha256": record.data_sha256,
        # A run may be made longer; all else would make it another one.
        "settings": {name: value for name, value in record.settings.items() if name != "steps"},
    }
    path = settings.run_folder / BEGUN
    text = json.dumps(origin, indent=2, sort_keys=True) + "\n"
    if settings.resume and path.is_file() and path.read_text(encoding="utf-8") != text:
        raise InputError(
            f"the run in {settings.run_folder} was begun with other settings, data or weights ({BEGUN} names them)",
            "resume it with the same ones, or choose another folder with --out",
        )
    if not (settings.run_folder / "checkpoint.pt").exists():
        write_all(settings.run_folder, [(BEGUN, text.encode())])
