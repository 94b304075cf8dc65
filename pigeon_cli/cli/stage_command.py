"""One command per training stage: the same options, another stage; fewer for stages without a training loop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pigeon_cli.cli.errors import reports_errors
from pigeon_cli.cli.options import Debug, Device, finite
from pigeon_cli.cli.talk import emit, print_note

Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="The dataset that 'pigeon train data' made.")]
ModelFolderOption = Annotated[
    Path,
    typer.Option("--model", metavar="DIR", help="Model folder: frozen parts are read from it, the trained written."),
]
Runs = Annotated[
    Path, typer.Option("--runs", metavar="DIR", help="Checkpoints, metrics.jsonl and sheets, one folder a stage.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps; default: the stage's own.")]
Batch = Annotated[int | None, typer.Option(min=2, help="Batch size; default: the stage's own.")]
LearningRate = Annotated[
    float | None, typer.Option(min=0, callback=finite, help="Peak learning rate; default: the stage's own.")
]
EvaluateEvery = Annotated[int, typer.Option(min=1, help="Steps between figures and sheets.")]
RunSeed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --runs.")]
InitFrom = Annotated[
    Path | None, typer.Option("--init-from", metavar="DIR", help="Start from the weights of this model folder.")
]
Looks = Annotated[int, typer.Option(min=1, help="Only where pictures are encoded: looks per icon set.")]
Cells = Annotated[int, typer.Option(min=8, help="Only where pictures are encoded: pictures per look.")]


def stage_command(stage: str, summary: str) -> Callable[..., None]:
    """A Typer command that runs ``stage``; its last figures go to stdout as JSON, progress to stderr."""

    def command(
        data: Data,
        model: ModelFolderOption,
        runs: Runs,
        steps: Steps = None,
        batch: Batch = None,
        learning_rate: LearningRate = None,
        evaluate_every: EvaluateEvery = 500,
        looks: Looks = 40,
        cells: Cells = 384,
        seed: RunSeed = 0,
        device: Device = "auto",
        resume: Resume = False,
        init_from: InitFrom = None,
        debug: Debug = False,
    ) -> None:
        _run(
            stage, data, model, runs, steps=steps, batch=batch, learning_rate=learning_rate,
            evaluate_every=evaluate_every, looks=looks, cells=cells, seed=seed, device=device, resume=resume,
            init_from=init_from,
        )  # fmt: skip

    command.__doc__ = summary
    return reports_errors(command)


def plain_command(stage: str, summary: str) -> Callable[..., None]:
    """The same for a stage that is computed in one go: with the options that every stage takes, and no others."""

    def command(
        data: Data, model: ModelFolderOption, runs: Runs, device: Device = "auto", debug: Debug = False
    ) -> None:
        _run(stage, data, model, runs, device=device)

    command.__doc__ = summary
    return reports_errors(command)


def encode_command(stage: str, summary: str) -> Callable[..., None]:
    """The same for the stage that encodes pictures, whose number and looks can be chosen."""

    def command(
        data: Data,
        model: ModelFolderOption,
        runs: Runs,
        looks: Looks = 40,
        cells: Cells = 384,
        seed: RunSeed = 0,
        device: Device = "auto",
        debug: Debug = False,
    ) -> None:
        _run(stage, data, model, runs, looks=looks, cells=cells, seed=seed, device=device)

    command.__doc__ = summary
    return reports_errors(command)


def _run(stage: str, data: Path, model: Path, runs: Path, **others: Any) -> None:
    """``others`` are fields of ``StageOptions``."""
    from pigeon_cli.training.stages import StageOptions, run_stage

    figures = run_stage(stage, StageOptions(data, model, runs, **others), print_note)
    emit((json.dumps(figures) + "\n").encode())
