"""``.readme/commands.md`` is what Typer writes about the commands as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pigeon_cli

ROOT = Path(pigeon_cli.__file__).parents[1]
PAGE = ROOT / ".readme" / "commands.md"
COMMAND = ("typer", "pigeon_cli.cli.main", "utils", "docs", "--name", "pigeon")


def test_the_page_is_up_to_date() -> None:
    # A narrow terminal, so that a page that depends on it would show.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "COLUMNS": "40"}
    command = [sys.executable, "-m", *COMMAND]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    written = PAGE.read_text(encoding="utf-8")
    again = f"{' '.join(COMMAND)} --output {PAGE.relative_to(ROOT)}"
    assert written.strip() == done.stdout.strip(), f"with typer {version('typer')}, run in {ROOT}: {again}"
