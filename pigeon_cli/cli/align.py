"""``pigeon align``: fit a trained base model to personal taste."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from pigeon_cli.cli.errors import reports_errors
from pigeon_cli.cli.options import Debug, Device
from pigeon_cli.cli.stage_command import Batch, Cells, EvaluateEvery, InitFrom, LearningRate, Looks, Steps
from pigeon_cli.cli.talk import emit, print_note

app = typer.Typer(help="Align a base model with personal taste.", no_args_is_help=True)

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DIR|FILE",
        help="One folder per user, a JSONL of interactions, the published .npy files, or what pigeon train data made.",
    ),
]
Pairs = Annotated[Path, typer.Option("--pairs", metavar="FILE", help="What pigeon align pairs made.")]
Model = Annotated[str, typer.Option("--model", metavar="NAME|DIR", help="The base model.")]
Alignment = Annotated[
    Path | None,
    typer.Option("--alignment", metavar="DIR", help="The alignment of stage 1; default: the one in the model folder."),
]
Split = Annotated[
    Literal["windows", "users"],
    typer.Option(help="Your own data is split 8:1:1 by windows of six images, or by users, who are then kept apart."),
]
Target = Annotated[
    Literal["self", "paired", "mixed"] | None,
    typer.Option(
        help="What is drawn anew: the reference itself, as in the paper; its like in the user's taste, where data "
        "has one; or mostly the latter. Default: mixed for icons, else self."
    ),
]
Score = Annotated[
    Literal["history", "both", "answer"] | None,
    typer.Option(
        help="What the best candidate is closest to: the history, history and reference by halves, or the right "
        "answer where data has one. Default: both for mini, history (the paper's) else."
    ),
]
Dials = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Positions of --ref-mask to draw at, as in 0,0.5,1; repeats draw again. Default: 0,0.2,...,1 for "
        "mini, else 0,0.1,...,1.",
    ),
]
Requests = Annotated[
    int | None, typer.Option(min=1, help="Requests to draw candidates for; default: 1500, or all there are.")
]
Out = Annotated[
    Path,
    typer.Option("--out", metavar="DIR", help="Folder for the alignment; checkpoints and sheets in DIR/run."),
]
OutOrRuns = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for the alignment, its run in DIR/run; default: the model folder's own files, with --runs.",
    ),
]
OutFile = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="Pairs as JSON lines; an unfinished file is continued.")
]
Runs = Annotated[
    Path | None,
    typer.Option("--runs", metavar="DIR", help="Checkpoints, metrics.jsonl, sheets and codes, one folder a stage."),
]
Accumulate = Annotated[int, typer.Option(min=1, help="Batches whose gradients are averaged into one step.")]
GradientCheckpointing = Annotated[
    bool,
    typer.Option("--gradient-checkpointing", help="Compute activations again instead of keeping them: less memory."),
]
Patience = Annotated[
    int | None,
    typer.Option(
        min=1, help="Stop after so many evaluations without a better one, and keep the best; default: the model's own."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of the run.")]
RunSeed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same result.")]


@app.command("reconstruct")
@reports_errors
def reconstruct(
    data: Data, model: Model, out: OutOrRuns = None, runs: Runs = None, target: Target = None, split: Split = "windows",
    steps: Steps = None, batch: Batch = None, learning_rate: LearningRate = None, evaluate_every: EvaluateEvery = 500,
    accumulate: Accumulate = 1, patience: Patience = None, gradient_checkpointing: GradientCheckpointing = False,
    looks: Looks = 40, cells: Cells = 384, seed: RunSeed = 0, device: Device = "auto", resume: Resume = False,
    init_from: InitFrom = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Stage 1, masked preference reconstruction: LoRA, adapter and mask generator.

    Example: pigeon align reconstruct --data data --model mini --out aligned
    """
    from pigeon_cli.training.align_reconstruct import align_reconstruct
    from pigeon_cli.training.alignments import AlignOptions
    from pigeon_cli.training.reconstruct_material import ReconstructOptions

    own = ReconstructOptions(data, runs, target, split, looks, cells, init_from)
    options = AlignOptions(
        model, out, None, steps, batch, learning_rate, evaluate_every, accumulate, patience, seed, device, resume,
        gradient_checkpointing,
    )  # fmt: skip
    emit_figures(align_reconstruct(own, options, print_note))


@app.command("pairs")
@reports_errors
def pairs(
    data: Data, model: Model, out: OutFile, alignment: Alignment = None, score: Score = None, dials: Dials = None,
    requests: Requests = None, split: Split = "windows", seed: RunSeed = 0, device: Device = "auto",
    debug: Debug = False,
) -> None:  # fmt: skip
    """Candidates over the dial, scored; the best and the worst of each request as preference pairs.

    Example: pigeon align pairs --data data --model mini --out pairs.jsonl
    """
    from pigeon_cli.training.make_pairs import PairOptions, make_pairs, parse_dials

    positions = None if dials is None else parse_dials(dials)
    options = PairOptions(data, model, out, alignment, score, positions, requests, seed, device, split)
    emit_figures(make_pairs(options, print_note))


@app.command("preferences")
@reports_errors
def preferences(
    pairs: Pairs, model: Model, out: Out, alignment: Alignment = None,
    steps: Steps = None, batch: Batch = None, learning_rate: LearningRate = None, evaluate_every: EvaluateEvery = 100,
    accumulate: Accumulate = 1, patience: Patience = None, gradient_checkpointing: GradientCheckpointing = False,
    seed: RunSeed = 0, device: Device = "auto", resume: Resume = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Stage 2, preference alignment (DPO): the LoRA learns to prefer the chosen to the rejected.

    Example: pigeon align preferences --pairs pairs.jsonl --model mini --out aligned
    """
    from pigeon_cli.training.align_preferences import align_preferences
    from pigeon_cli.training.alignments import AlignOptions

    options = AlignOptions(
        model, out, alignment, steps, batch, learning_rate, evaluate_every, accumulate, patience, seed, device, resume,
        gradient_checkpointing,
    )  # fmt: skip
    emit_figures(align_preferences(pairs, options, print_note))


def emit_figures(figures: dict[str, float]) -> None:
    """Figures as JSON on stdout, once, however many processes there are."""
    if os.environ.get("RANK", "0") == "0":
        emit((json.dumps(figures) + "\n").encode())
