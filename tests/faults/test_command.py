"""Planted faults met through the real command: one clear line, a hint, the right exit status, no model loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import pigeon_cli

RUNNER = """
import sys
from pigeon_cli.cli.main import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


def pigeon(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(pigeon_cli.__file__).parents[1]), "PYTHONUTF8": "1"}
    command = [sys.executable, "-c", RUNNER, "generate", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """``good/`` with one image, ``empty/``, ``broken/`` with a broken one, ``wish.png``, and unusable files."""
    for folder in ("good", "empty", "broken"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (4, 4), "red").save(tmp_path / "good" / "a.png")
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "wish.png")
    (tmp_path / "broken" / "a.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "broken.png").write_bytes(b"GIF89a")
    (tmp_path / "cut.png").write_bytes((tmp_path / "wish.png").read_bytes()[:-30])
    (tmp_path / "nothing.png").touch()
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "\x1b[31m[" / "x]").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("history", "reference", "options", "code", "says"),
    [
        ("empty", "wish.png", (), 5, "no image in the history empty"),
        ("broken", "wish.png", (), 5, "no usable image in the history broken: 1 skipped (a.png: "),
        ("nowhere", "wish.png", (), 5, "there is no file or folder nowhere"),
        ("good", "nowhere.png", (), 5, "cannot use the image nowhere.png: No such file"),
        ("good", "broken.png", (), 5, "cannot use the image broken.png: "),
        ("good", "cut.png", (), 5, "cannot use the image cut.png: it is damaged"),
        ("good", "nothing.png", (), 5, "cannot use the image nothing.png: the file is empty"),
        ("good", "loop.png", (), 5, "cannot use the image loop.png: Too many levels of symbolic links"),
        ("good", "good", (), 5, "cannot use the image good: it is a folder"),
        ("loop.png", "wish.png", (), 5, "no usable image in the history loop.png: 1 skipped (loop.png: Too many"),
        ("wish.png", "wish.png", (), 5, "same content as the reference"),
        ("good", "wish.png", ("--history-size", "6"), 2, "the model mini reads 5 history images"),
        ("good", "wish.png", ("--model", "good"), 3, "the model folder good lacks config.json"),
        ("good", "wish.png", ("--model", "nowhere"), 3, "there is no model 'nowhere'"),
        ("\x1b[31m[/x]", "wish.png", (), 5, "\\x1b[31m[/x]"),
        ("good", "wish.png", ("--out", "wish.png"), 6, "cannot write to wish.png: "),
        ("good", "wish.png", ("--out", "wish.png/deep/er"), 6, "cannot write to wish.png/deep/er: "),
        ("good", "wish.png", ("--out", "/proc/pigeon"), 6, "cannot write to /proc/pigeon: "),
        ("good", "wish.png", ("--out", "/dev/full"), 6, "cannot write to /dev/full: Not a directory"),
        ("good", "wish.png", ("--out", "loop.png"), 6, "cannot write to loop.png: Too many levels of symbolic links"),
        ("good", "wish.png", ("--out", "x" * 300), 6, "File name too long"),
    ],
)
def test_one_clear_line(place: Path, history: str, reference: str, options, code: int, says: str) -> None:
    before = sorted(place.rglob("*"))
    done = pigeon(place, "--history", history, "--ref", reference, *options)
    assert (done.returncode, done.stdout) == (code, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ") and says in error
    assert hint.startswith("hint: ")
    assert sorted(place.rglob("*")) == before
