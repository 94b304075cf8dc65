"""Ctrl-C in every stage of a real run: exit status 130, nothing on stdout, nothing on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import Result

import pigeon_cli
from pigeon_cli.weights.store import ModelFolder

Pigeon = Callable[..., Result]
OF_A_REFERENCE = (
    "open the images", "read the images", "mask", "imagine", "prescore", "draw", "score", "hash the weights",
)  # fmt: skip
STAGES = [(name, moment) for name in OF_A_REFERENCE for moment in ("start", "end")]


def interrupt(monkeypatch: pytest.MonkeyPatch, stage: str, moment: str) -> list[str]:
    """Make the progress of the command raise as Ctrl-C does; returns the names of the stages as they pass."""
    seen: list[str] = []

    @contextmanager
    def display(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
        def progress(name: str, done: int, total: int) -> None:
            if done == 0:
                seen.append(name)
            if name == stage and (done == total) == (moment == "end"):
                raise KeyboardInterrupt

        yield progress

    monkeypatch.setattr("pigeon_cli.cli.generate.progress_display", display)
    return seen


def test_these_are_all_stages(pigeon: Pigeon, liked: Path, wish: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = interrupt(monkeypatch, "none", "end")
    assert pigeon("--history", liked, "--ref", wish, "-n", "1").exit_code == 0
    assert seen == list(OF_A_REFERENCE)


@pytest.mark.parametrize(("stage", "moment"), STAGES)
def test_ctrl_c(
    pigeon: Pigeon, liked: Path, wish: Path, monkeypatch: pytest.MonkeyPatch, stage: str, moment: str
) -> None:
    seen = interrupt(monkeypatch, stage, moment)
    result = pigeon("--history", liked, "--ref", wish, "--out", "out", "-n", "1")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "error: interrupted\n")
    assert seen[-1] == stage and not Path("out").exists()


def test_ctrl_c_while_a_reference_is_imagined(pigeon: Pigeon, liked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "imagine a reference", "start")
    result = pigeon("--history", liked, "--prompt", "red fox", "--out", "out")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "error: interrupted\n")
    assert not Path("out").exists()


@pytest.mark.parametrize("step", ["history.intake._read", "history.intake._decode", "report.png.png_bytes"])
def test_ctrl_c_before_and_after_the_pipeline(
    pigeon: Pigeon, liked: Path, wish: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"pigeon_cli.{step}", interrupted)
    result = pigeon("--history", liked, "--ref", wish, "--out", "out", "-n", "1", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "error: interrupted\n")
    assert not Path("out").exists()


def test_a_signal_while_a_real_process_draws(liked: Path, wish: Path, tiny: ModelFolder, tmp_path: Path) -> None:
    script = "from pigeon_cli.cli.main import main; main()"
    arguments = ("--history", "liked", "--ref", wish.name, "--out", "out", "--model", str(tiny.path))
    # So many steps that drawing is still going on when the signal comes.
    command = [sys.executable, "-c", script, "generate", *arguments, "--device", "cpu", "--steps", "1000"]
    environment = {**os.environ, "PYTHONPATH": str(Path(pigeon_cli.__file__).parents[1])}
    before = sorted(tmp_path.rglob("*"))
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        while not (line := process.stderr.readline()).startswith(b"draw"):
            assert line, "the process ended before it drew"
        process.send_signal(signal.SIGINT)
        output, talk = process.communicate(timeout=60)
    assert (process.returncode, output, talk) == (130, b"", b"error: interrupted\n")
    assert sorted(tmp_path.rglob("*")) == before
