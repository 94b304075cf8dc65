"""The entry point: ``--version``, ``--help`` and the register of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from pigeon_cli import __version__
from pigeon_cli.cli import align, download, study, train
from pigeon_cli.cli.evaluate import evaluate
from pigeon_cli.cli.generate import generate
from pigeon_cli.cli.inspect_mask import inspect_mask

app = typer.Typer(
    name="pigeon",
    help="Personalized image generation: draws what you want in the taste of images that you like.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"pigeon {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command's name."""


# Each command is one module of this folder that imports nothing heavy at its top.
app.command("generate")(generate)
app.command("inspect-mask")(inspect_mask)
app.add_typer(train.app, name="train")
app.add_typer(align.app, name="align")
app.command("evaluate")(evaluate)
app.add_typer(study.app, name="study")
app.add_typer(download.app, name="download")


def main() -> None:
    """Runs the command line of this process."""
    app(prog_name="pigeon")
