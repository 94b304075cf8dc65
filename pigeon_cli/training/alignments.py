"""What the stages of ``pigeon align`` share: defaults by model size, run folders, and the record of what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pigeon_cli.core.errors import InputError, UsageError
from pigeon_cli.report.files import write_all
from pigeon_cli.training.curves import save_curves
from pigeon_cli.training.loop import LoopSettings
from pigeon_cli.training.stages import StageDefaults
from pigeon_cli.weights.alignment_folder import AlignmentRecord, write_record
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.store import DOWNLOADED, ModelFolder, is_official

RUN_FOLDER: Final = "run"
"""Within the alignment: checkpoint, metrics, sheets. The alignment works without it."""
BEGUN: Final = "begun.json"
"""Within the run's folder: what it began from, so that it is resumed with nothing else."""
MINI: Final = {
    "reconstruct": StageDefaults(800, 16, 1e-3),
    "preferences": StageDefaults(300, 16, 2e-4, warmup=20),
}
PAPER: Final = {
    "reconstruct": StageDefaults(10_000, 16, 1e-5, warmup=20, epochs=50, patience=10),
    "preferences": StageDefaults(1000, 8, 5e-6, warmup=20),
}
"""The paper's rates and batches, for the published sizes; of stage 2 it names no length."""


@dataclass(frozen=True)
class AlignOptions:
    """What the command line passes on to a stage of alignment; ``None`` takes the model's default."""

    model: str
    out: Path | None
    alignment: Path | None = None
    steps: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    evaluate_every: int = 100
    accumulate: int = 1
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    gradient_checkpointing: bool = False


def check_alignable(model: str) -> None:
    """Raises :class:`UsageError` for a published model, by name or by folder."""
    if model in DOWNLOADED or is_official(Path(model)):
        raise UsageError(
            f"{model} can be drawn with, not aligned yet: alignment works on models of mini's layout",
            "use --model mini, or a folder in its layout",
        )


def loop_settings(
    stage: str, folder: ModelFolder, options: AlignOptions, run_folder: Path, requests: int | None = None
) -> LoopSettings:
    """The loop's settings: the model's defaults where the options leave them open.

    ``requests`` are those that there are, where they end.
    """
    defaults = (MINI if folder.spec.name == "mini" else PAPER)[stage]
    batch = options.batch or defaults.batch
    steps = defaults.steps
    if defaults.epochs is not None and requests is not None:
        steps = defaults.epochs * -(-requests // (batch * options.accumulate))
    return LoopSettings(
        run_folder=run_folder,
        steps=options.steps or steps,
        batch=batch,
        learning_rate=defaults.learning_rate if options.learning_rate is None else options.learning_rate,
        seed=options.seed,
        warmup=defaults.warmup,
        evaluate_every=options.evaluate_every,
        resume=options.resume,
        accumulate=options.accumulate,
        patience=options.patience or defaults.patience,
    )


def origin(
    stage: str, folder: ModelFolder, parents: tuple[str, ...], data_sha256: str, settings: Mapping[str, Any]
) -> AlignmentRecord:
    """What a stage begins from, without its figures."""
    return AlignmentRecord(
        stage=stage,
        base=folder.spec.name,
        base_sha256=sha256_of(folder.part("language")),
        parents={part: sha256_of(folder.part(part)) for part in parents},
        data_sha256=data_sha256,
        settings=settings,
        figures={},
    )


def recorded(settings: LoopSettings) -> dict[str, Any]:
    """The settings that decide what is learned."""
    names = (
        "steps", "batch", "accumulate", "learning_rate", "seed", "warmup", "weight_decay", "gradient_clip", "patience",
    )  # fmt: skip
    return {name: getattr(settings, name) for name in names}


def begin(settings: LoopSettings, record: AlignmentRecord) -> None:
    """Write down what the run begins from; :class:`InputError` where it is resumed with something else."""
    begun: Mapping[str, Any] = {
        "stage": record.stage,
        "base_sha256": record.base_sha256,
        "parents": record.parents,
        "data_sha256": record.data_sha256,
        # A run may be made longer; all else would make it another one.
        "settings": {name: value for name, value in record.settings.items() if name != "steps"},
    }
    path = settings.run_folder / BEGUN
    text = json.dumps(begun, indent=2, sort_keys=True) + "\n"
    if settings.resume and path.is_file() and path.read_text(encoding="utf-8") != text:
        raise InputError(
            f"the run in {settings.run_folder} was begun with other settings, data or weights ({BEGUN} names them)",
            "resume it with the same ones, or choose another folder",
        )
    if not settings.checkpoint.exists():
        write_all(settings.run_folder, [(BEGUN, text.encode())])


def finish(settings: LoopSettings, record: AlignmentRecord, figures: Mapping[str, float], out: Path | None) -> None:
    """Complete the alignment in ``out`` where there is one, and draw the run's curves."""
    if out is not None:
        write_record(out, replace(record, figures=figures))
    save_curves(settings.run_folder)
