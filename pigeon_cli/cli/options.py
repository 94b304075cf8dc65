"""The options of the commands, named once so that a command's signature stays readable."""

from __future__ import annotations

import glob
import math
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

INPUTS = "What you like, what you want"
TASTE = "Taste"
DRAWING = "Drawing"
MACHINE = "Machine"
OUTPUT = "Output"


def finite(value: float | None) -> float | None:
    """The value itself; a usage error for infinity and for what is no number."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("it must be a finite number")
    return value


def complete_model(incomplete: str) -> list[str]:
    """The models by name and the model folders that begin with ``incomplete``, for the shell; loads no torch."""
    from pigeon_cli.weights.store import BUNDLED, DOWNLOADED

    named = [name for name in (*BUNDLED, *DOWNLOADED) if name.startswith(incomplete)]
    return named + sorted(map(os.path.dirname, glob.glob(f"{glob.escape(incomplete)}*/config.json")))


History = Annotated[
    list[Path] | None,
    typer.Option(
        "--history",
        metavar="DIR|FILE...",
        help="Liked images: folders or files; may be repeated. '-' reads paths from standard input, one a line, "
        "and '-0' reads them as find -print0 writes them.",
        rich_help_panel=INPUTS,
    ),
]
MoreHistory = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE", help="More liked images after --history, as in --history *.png."),
]
NullSeparated = Annotated[
    bool, typer.Option("-0", "--null", help="Paths on standard input end with NUL characters.", rich_help_panel=INPUTS)
]
Ref = Annotated[
    Path | None,
    typer.Option("--ref", metavar="IMG", help="The image to draw anew in that taste.", rich_help_panel=INPUTS),
]
Caption = Annotated[
    str | None,
    typer.Option(
        help="Words about --ref; else NAME.txt beside the image; else, for published models, the words of its name.",
        rich_help_panel=INPUTS,
    ),
]
Prompt = Annotated[str | None, typer.Option(help="Words instead of a reference image.", rich_help_panel=INPUTS)]
Emotion = Annotated[
    str | None,
    typer.Option(
        metavar="WORD",
        help="The emotion to show, such as joy. A model whose prompt has no place for it says so in the report.",
        rich_help_panel=INPUTS,
    ),
]
Title = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What --ref or --prompt is called, for posters; default: the name of the file. Liked images are called "
        "what NAME.txt beside them says, else by their names. A year in brackets is left out.",
        rich_help_panel=INPUTS,
    ),
]
Scenario = Annotated[
    Literal["sticker", "poster"] | None,
    typer.Option(
        help="The wording of the prompt, of published models; default: the model's own.", rich_help_panel=INPUTS
    ),
]
Sample = Annotated[
    bool, typer.Option("--sample", help="Try it with the images in the package.", rich_help_panel=INPUTS)
]
HistorySize = Annotated[
    int,
    typer.Option(
        min=1,
        help="The last so many usable images are the history; no more than the model was made for.",
        rich_help_panel=INPUTS,
    ),
]
OrderBy = Annotated[
    Literal["name", "time"],
    typer.Option("--order", help="Natural name order or modification time.", rich_help_panel=INPUTS),
]
Recursive = Annotated[
    bool, typer.Option("--recursive", help="Look into folders within folders.", rich_help_panel=INPUTS)
]
Alpha = Annotated[
    str,
    typer.Option(metavar="white|drop|#RRGGBB", help="What stands behind transparent pixels.", rich_help_panel=INPUTS),
]
RefMask = Annotated[
    str,
    typer.Option(
        metavar="auto|0..1",
        help="Share of the reference that is hidden: 0 follows the reference, 1 the taste. auto tries 0, .1, ... 1.",
        rich_help_panel=TASTE,
    ),
]
HistoryMask = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        callback=finite,
        help="Share of the history that is dropped; default: the model's own.",
        rich_help_panel=TASTE,
    ),
]
Mask = Annotated[
    Literal["learned", "similarity", "random", "off"] | None,
    typer.Option(help="What decides which tokens are kept; default: the model's own.", rich_help_panel=TASTE),
]
Count = Annotated[
    int, typer.Option("-n", "--count", min=1, max=99, help="Images to write, best first.", rich_help_panel=DRAWING)
]
Seed = Annotated[
    int, typer.Option(min=0, help="The same seed gives the same images on one machine.", rich_help_panel=DRAWING)
]
Model = Annotated[
    str,
    typer.Option(metavar="NAME|DIR", help="Which model draws.", autocompletion=complete_model, rich_help_panel=DRAWING),
]
Alignment = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="An alignment that pigeon align made for this model, in place of its own.",
        rich_help_panel=DRAWING,
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, max=1000, help="Diffusion steps.", rich_help_panel=DRAWING)]
Guidance = Annotated[
    float | None, typer.Option(min=0, callback=finite, help="Diffusion guidance.", rich_help_panel=DRAWING)
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0, callback=finite, help="Of the drawing of codes; 0 takes the likeliest.", rich_help_panel=DRAWING
    ),
]
TopK = Annotated[int | None, typer.Option(min=1, help="Codes are drawn from the K likeliest.", rich_help_panel=DRAWING)]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Codes per image at most.", rich_help_panel=DRAWING)]
Aspect = Annotated[
    Literal["1:1", "4:3", "3:2", "16:9", "2:3", "3:4"] | None,
    typer.Option(
        help="Width to height, of published models; default: 2:3 for posters, else 1:1.", rich_help_panel=DRAWING
    ),
]
Size = Annotated[
    int | None,
    typer.Option(min=8, metavar="N", help="The long side in pixels, a multiple of 8.", rich_help_panel=DRAWING),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.", rich_help_panel=MACHINE)
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Use no more memory than this, such as 16GB; parts come and go. Default: what is free.",
        rich_help_panel=MACHINE,
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(
        help="What is computed with; auto: the model's own, and int8 weights where that does not fit.",
        rich_help_panel=MACHINE,
    ),
]
Quantize = Annotated[
    Literal["none", "int8", "nf4"] | None,
    typer.Option(help="The language model's weights in fewer bits; nf4 on CUDA only.", rich_help_panel=MACHINE),
]
ShowPlan = Annotated[
    bool,
    typer.Option(
        "--plan",
        help="Print what would be loaded, run and evicted, with the memory that each step takes, and do nothing.",
        rich_help_panel=MACHINE,
    ),
]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for the images and report.json.", rich_help_panel=OUTPUT)
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.", rich_help_panel=OUTPUT)]
NoMetadata = Annotated[
    bool,
    typer.Option(
        "--no-metadata",
        help="PNG files without words, seed and settings; the mark that a model made them (IPTC) stays.",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the report instead of the paths.", rich_help_panel=OUTPUT)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; warnings stay.", rich_help_panel=OUTPUT)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OUTPUT)]
