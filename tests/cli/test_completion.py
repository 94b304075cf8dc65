"""The shell's tab key: what is offered, and that no torch is loaded for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pigeon_cli

RUNNER = """
import json, sys
from pigeon_cli.cli.main import main
try:
    main()
finally:
    print(json.dumps(sorted(set(sys.modules) & {"torch", "PIL", "numpy", "sentencepiece"})), file=sys.stderr)
"""


def run(folder: Path, *arguments: str, **variables: str) -> str:
    """What ``pigeon`` prints with ``variables`` set; it must load nothing heavy."""
    environment = {**os.environ, "PYTHONPATH": str(Path(pigeon_cli.__file__).parents[1]), **variables}
    command = [sys.executable, "-c", RUNNER, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []
    return done.stdout


def offered(folder: Path, line: str) -> list[str]:
    """What bash is told after ``line`` and a tab."""
    number = str(len(line.split(" ")) - 1)
    return run(folder, _PIGEON_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=number).split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pigeon gen", ["generate"]),
        ("pigeon generate --mask ", ["learned", "similarity", "random", "off"]),
        ("pigeon generate --mask s", ["similarity"]),
        ("pigeon generate --device ", ["auto", "cpu", "cuda", "mps"]),
        ("pigeon generate --order t", ["time"]),
        ("pigeon generate --model mi", ["mini"]),
        ("pigeon generate --model st", ["sticker"]),
        ("pigeon generate --model models/", ["models/mine", "models/yours"]),
        ("pigeon generate --history-m", ["--history-mask"]),
    ],
)
def test_values_are_offered(tmp_path: Path, line: str, expected: list[str]) -> None:
    for name in ("models/mine", "models/yours"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").touch()
    (tmp_path / "models" / "no model").mkdir()
    assert offered(tmp_path, line) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_names_the_program(tmp_path: Path, shell: str) -> None:
    script = run(tmp_path, "--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_PIGEON_COMPLETE" in script and "pigeon" in script


def test_installing_writes_into_the_home_folder(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    run(tmp_path, "--install-completion", "bash", **home)
    assert "_PIGEON_COMPLETE" in (tmp_path / ".bash_completions" / "pigeon.sh").read_text()
    assert "pigeon.sh" in (tmp_path / ".bashrc").read_text()
