"""The loop: an interrupted and resumed run ends with the same loss and weights as an uninterrupted one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pigeon_cli.core.errors import InputError
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.training.loop import LoopSettings, MovingAverage, TrainingTask, learning_rate_share, run_training


class Line(TrainingTask):
    """A line through noisy points, with dropout, a moving average and a crash on demand."""

    name = "line"

    def __init__(self, out: Path, crash_at: int | None = None) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.average = MovingAverage(self.model)
        self.modules = {"model": self.model, "average": self.average}
        self.out, self.crash_at = out, crash_at

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        if step == self.crash_at:
            raise KeyboardInterrupt
        values = torch.tensor([[rng.random() for _ in range(3)] for _ in range(16)])
        noise = 0.01 * torch.randn(16, 1)
        return {"loss": (self.model(values) - values.sum(1, keepdim=True) + noise).float().square().mean()}

    def after_step(self, step: int) -> None:
        self.average.update(self.model, step)

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        return {"valid": float(self.model(torch.ones(1, 3)).float())}

    def export(self) -> None:
        torch.save(self.average.state_of(self.model), self.out)


def settings(folder: Path, resume: bool = False) -> LoopSettings:
    return LoopSettings(
        folder, steps=12, batch=16, learning_rate=0.01, warmup=3, checkpoint_seconds=0, log_every=1, resume=resume
    )


def run(folder: Path, resume: bool = False, crash_at: int | None = None) -> dict[str, float]:
    folder.mkdir(exist_ok=True)
    task = Line(folder / "weights.pt", crash_at)
    return run_training(task, settings(folder, resume), choose_device("cpu"), lambda text: None)


def test_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", crash_at=7)
    resumed = run(tmp_path / "broken", resume=True)
    assert resumed == whole
    weights = [torch.load(tmp_path / name / "weights.pt", weights_only=True) for name in ("whole", "broken")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_losses_are_logged_as_json_lines(tmp_path: Path) -> None:
    run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 12
    assert losses[-1] < losses[0]


def test_existing_checkpoint_needs_resume(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match="already holds a checkpoint"):
        run(tmp_path)


def test_learning_rate_warms_up_and_falls() -> None:
    shares = [learning_rate_share(step, 100, 10) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == pytest.approx(1.0)
    assert shares[-1] < 0.03
