"""Alignment killed with -9 and resumed, and alignment by two processes, end as one undisturbed process does."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import pigeon_cli
from pigeon_cli.cli.main import app
from pigeon_cli.core.errors import UsageError
from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.weights.store import ModelFolder

MAIN = "from pigeon_cli.cli.main import main; main()"
KILLED = """
import os, signal
from pigeon_cli.training import loop
original = loop._Run._step

def step(self, number):
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    losses = original(self, number)
    if number == 1:
        self._save(number + 1)
    return losses

loop._Run._step = step
"""
"""Ends the process before its fifth step, two steps after its last checkpoint."""


IN_FLOAT32 = """
import contextlib
from pigeon_cli.engine.devices import DeviceChoice

DeviceChoice.autocast = lambda self: contextlib.nullcontext()
"""
"""Leaves bf16 out: its rounding depends on how much padding stands beside a row, by far more than is compared here."""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(pigeon_cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def apart(*command: str) -> subprocess.CompletedProcess[str]:
    """In processes of their own."""
    words = [sys.executable, *command, "--device", "cpu"]
    return subprocess.run(words, env=environment(), text=True, capture_output=True, check=False)


def here(*words: str) -> dict[str, float]:
    result = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert result.exit_code == 0, result.stderr
    found: dict[str, float] = json.loads(result.stdout)
    return found


def stage(name: str, icons: Path, tiny: ModelFolder, pairs_file: Path) -> list[str]:
    inputs = {
        "reconstruct": ["--data", str(icons), "--looks", "2", "--cells", "12"],
        "preferences": ["--pairs", str(pairs_file)],
    }
    steps = ["--steps", "6", "--batch", "4", "--evaluate-every", "6", "--learning-rate", "0.001"]
    return ["align", name, *inputs[name], "--model", str(tiny.path), *steps]


@pytest.mark.parametrize("name", ["reconstruct", "preferences"])
def test_a_killed_run_ends_like_an_undisturbed_one(
    name: str, icons: Path, tiny: ModelFolder, pairs_file: Path, tmp_path: Path
) -> None:
    words = stage(name, icons, tiny, pairs_file)
    whole = here(*words, "--out", str(tmp_path / "whole"))
    killed = apart("-c", KILLED + MAIN, *words, "--out", str(tmp_path / "killed"))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed" / "alignment.json").exists()
    resumed = here(*words, "--out", str(tmp_path / "killed"), "--resume")
    assert resumed["loss"] == pytest.approx(whole["loss"], abs=1e-5)
    first, second = (load_file(tmp_path / side / "lora.safetensors") for side in ("whole", "killed"))
    assert all(torch.allclose(first[key], second[key], atol=1e-6) for key in first)
    assert (tmp_path / "killed" / "run" / "curves.png").is_file()


def test_the_bundled_model_is_not_written_to(icons: Path, tmp_path: Path) -> None:
    words = ["align", "reconstruct", "--data", str(icons), "--model", "mini", "--runs", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == UsageError.exit_code
    assert "--out" in result.stderr


def test_two_processes_are_one_with_twice_the_batch(
    tiny: ModelFolder, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["align", "preferences", "--pairs", str(pairs_file), "--model", str(tiny.path)]
    steps = ["--steps", "4", "--evaluate-every", "4", "--learning-rate", "0.02"]
    script = tmp_path / "pigeon.py"
    script.write_text(IN_FLOAT32 + MAIN)
    monkeypatch.setattr(DeviceChoice, "autocast", lambda self: contextlib.nullcontext())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    # Without GPUs this starts two processes on the CPU, which find each other by gloo; --cpu would start only one.
    launcher = (
        "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port, str(script),
    )  # fmt: skip
    done = apart(*launcher, *words, *steps, "--batch", "4", "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    one = here(*words, *steps, "--batch", "8", "--out", str(tmp_path / "one"))
    gathered = here(*words, *steps, "--batch", "4", "--accumulate", "2", "--out", str(tmp_path / "gathered"))
    assert abs(one["loss"] - math.log(2)) > 0.005
    for other in (two, gathered):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert other["valid_loss"] == pytest.approx(one["valid_loss"], abs=1e-4)
    weights = [load_file(tmp_path / name / "lora.safetensors") for name in ("one", "two", "gathered")]
    for other_weights in weights[1:]:
        assert all(torch.allclose(weights[0][key], other_weights[key], atol=1e-4) for key in weights[0])
