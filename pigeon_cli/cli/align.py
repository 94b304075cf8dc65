"""``pigeon align``: fit a trained base model to personal taste."""

from __future__ import annotations

import typer

from pigeon_cli.cli.stage_command import stage_command

app = typer.Typer(help="Align a base model with personal taste.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps ``reconstruct`` a named subcommand while it is the only one."""


app.command("reconstruct")(
    stage_command("reconstruct", "Stage 1, masked preference reconstruction: LoRA, adapter and mask generator.")
)
