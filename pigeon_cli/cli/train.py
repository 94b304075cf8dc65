"""``pigeon train``: the dataset and the parts of a model, from nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pigeon_cli.cli.errors import reports_errors
from pigeon_cli.cli.options import Debug
from pigeon_cli.cli.stage_command import encode_command, plain_command, stage_command
from pigeon_cli.cli.talk import emit, print_note

app = typer.Typer(help="Train a model of mini's kind from nothing, part by part.", no_args_is_help=True)

STAGES = {
    "text": "Word pieces of the prompt (SentencePiece).",
    "vae": "The latent space that pictures are drawn in.",
    "tokenizer": "ViT, token selector, merger, codebook and embedding decoder.",
    "style": "Trains the style tokens, and the decoder that draws one picture in the style of another.",
    "taste": "What pictures of one taste share, read off any few of them.",
    "encode": "Write the codes of all training pictures ahead of time.",
    "translator": "What a reference's places become in the style of a history.",
    "decoder": "The UNet that draws latents from codes, liked pictures, a taste, and what is seen of a reference.",
    "foretell": "What an icon set never drew, foretold from the others' drawings, for the memory.",
    "memory": "Plain drawings that words are to bring back.",
    "language": "The base language model over words, codes and reference slots.",
    "scorer": "The heads that rank candidates.",
}
"""In the order in which they build on each other."""
COMMANDS = {"text": plain_command, "encode": encode_command, "memory": plain_command}
"""How the command of a stage is made that has no training loop."""


@app.command("data")
@reports_errors
def data(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the dataset, about 800 MB.")],
    source: Annotated[
        Path | None,
        typer.Option("--source", metavar="DIR", help="Folder of fetched .tgz packages; default: runs npm pack."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Render the icon sets into a dataset with index, licences, splits and words."""
    from pigeon_cli.training.data.icons import build_dataset

    summary = build_dataset(source, out)
    print_note(f"{summary.images} images of {summary.meanings} meanings")
    emit(os.fsencode(out) + b"\n")


for _name, _summary in STAGES.items():
    app.command(_name)(COMMANDS.get(_name, stage_command)(_name, _summary))
