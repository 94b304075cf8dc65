"""The pipelines of the README's section "In pipelines", each run by a shell as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import pigeon_cli
from pigeon_cli.weights.store import ModelFolder
from tests.e2e.conftest import picture

ROOT = Path(pigeon_cli.__file__).parents[1]
HEADING = "In pipelines"


def recipes() -> list[str]:
    """The commands of the section's indented or fenced blocks, one a line, continued by a backslash."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {HEADING}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None, f"the README has no section {HEADING!r}"
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^    (.*\n)", re.sub(r"^```.*?^```", "", section[1], flags=re.DOTALL | re.MULTILINE), re.M)
    lines = "".join((*fenced, *indented)).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


@pytest.fixture
def place(tmp_path: Path, tiny: ModelFolder, liked_images: list[Image.Image]) -> Path:
    """What the recipes speak of: ``liked/``, ``cat.png``, and a ``pigeon`` that draws with the tiny model."""
    (tmp_path / "liked").mkdir()
    for number, image in enumerate(liked_images):
        image.save(tmp_path / "liked" / f"no {number}\n.png")
    picture(99).save(tmp_path / "cat.png")
    script = tmp_path / "bin" / "pigeon"
    script.parent.mkdir()
    call = shlex.join([sys.executable, "-c", "from pigeon_cli.cli.main import main; main()"])
    model = shlex.join(["--model", str(tiny.path), "--device", "cpu"])
    script.write_text(f'#!/bin/sh\nexec {call} "$@" {model}\n', encoding="utf-8")
    script.chmod(0o755)
    return tmp_path


def test_there_are_recipes() -> None:
    found = recipes()
    assert any("-print0 | pigeon generate" in recipe for recipe in found)
    assert any("--json" in recipe and "jq" in recipe for recipe in found)


@pytest.mark.parametrize("recipe", recipes())
def test_a_recipe_of_the_readme(place: Path, recipe: str) -> None:
    if "jq" in recipe.replace("|", " ").split() and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    shell = ["bash", "-e", "-o", "pipefail", "-c", recipe]
    done = subprocess.run(shell, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout and "error" not in done.stderr
