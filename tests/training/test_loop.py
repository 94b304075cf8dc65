"""The loop: an interrupted and resumed run ends with the same loss and weights as an uninterrupted one."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pigeon_cli.core.errors import InputError, UsageError
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.training import loop
from pigeon_cli.training.curves import HEIGHT, STROKE, WIDTH, draw_curves, read_curves
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


def test_a_run_goes_on_at_its_own_learning_rate_only(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, crash_at=7)
    slower = dataclasses.replace(settings(tmp_path, resume=True), learning_rate=0.001)
    with pytest.raises(InputError, match=r"another learning rate than 0\.001"):
        run_training(Line(tmp_path / "weights.pt"), slower, choose_device("cpu"), lambda text: None)
    assert run(tmp_path, resume=True) == run(tmp_path / "whole")


class Diverging(Line):
    """Weights that are no numbers after a step, which only the next loss would show."""

    def after_step(self, step: int) -> None:
        super().after_step(step)
        if step == 7:
            with torch.no_grad():
                next(self.model.parameters()).fill_(torch.nan)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    task = Diverging(tmp_path / "weights.pt")
    unheard = dataclasses.replace(settings(tmp_path), log_every=100)
    with pytest.raises(InputError, match="no numbers any more after step 8") as raised:
        run_training(task, unheard, choose_device("cpu"), lambda text: None)
    assert "--learning-rate" in raised.value.hint
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 7
    assert all(bool(tensor.isfinite().all()) for tensor in torch.load(tmp_path / "weights.pt").values())


def test_learning_rate_warms_up_and_falls() -> None:
    shares = [learning_rate_share(step, 100, 10) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == pytest.approx(1.0)
    assert shares[-1] < 0.03


class Valley(TrainingTask):
    """One number that is pulled to its batch; on held-out data it is best at 0.6, which it passes by."""

    name = "valley"
    shares = True

    def __init__(self, out: Path, batch: int = 4) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)
        self.modules = {"model": self.model}
        self.out, self.batch = out, batch

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        drawn = [rng.uniform(1.5, 2.5) for _ in range(self.batch * self.share.count)]
        return {"loss": (self.model.weight.float() - torch.tensor(self.share.of(drawn))).square().mean()}

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        return {"valid_loss": abs(float(self.model.weight) - 0.6)}

    def export(self) -> None:
        torch.save(self.model.weight.detach().clone(), self.out)


def descend(folder: Path, batch: int = 4, **changes: Any) -> tuple[dict[str, float], float]:
    folder.mkdir(exist_ok=True)
    task = Valley(folder / "weight.pt", batch)
    chosen = dataclasses.replace(
        settings(folder), steps=40, learning_rate=0.1, weight_decay=0.0, evaluate_every=1, **changes
    )
    figures = run_training(task, chosen, choose_device("cpu"), lambda text: None)
    return figures, float(torch.load(task.out, weights_only=True))


def test_patience_ends_a_run_and_keeps_its_best_weights(tmp_path: Path) -> None:
    figures, weight = descend(tmp_path / "patient", patience=4)
    assert abs(weight - 0.6) == pytest.approx(figures["valid_loss"], abs=1e-6)
    steps = [json.loads(line)["step"] for line in (tmp_path / "patient" / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == figures["best_step"] + 4 < 40
    _, last = descend(tmp_path / "impatient")
    assert abs(last - 0.6) > abs(weight - 0.6) + 0.2


def test_patience_begins_where_there_is_something_to_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, _ = descend(tmp_path / "whole", patience=4)
    monkeypatch.setattr(Valley, "patient_from", 30)
    later, _ = descend(tmp_path / "later", patience=4)
    assert figures["best_step"] < 30 < later["best_step"]


def test_a_patient_run_that_was_broken_off_counts_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = descend(tmp_path / "whole", patience=4)
    original = loop._Run._step

    def broken(self: loop._Run, step: int) -> dict[str, Tensor]:
        if step == 10:
            raise KeyboardInterrupt
        return original(self, step)

    monkeypatch.setattr(loop._Run, "_step", broken)
    with pytest.raises(KeyboardInterrupt):
        descend(tmp_path / "broken", patience=4)
    monkeypatch.undo()
    assert descend(tmp_path / "broken", patience=4, resume=True) == whole


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    large, weight = descend(tmp_path / "large", batch=8)
    small, other = descend(tmp_path / "small", batch=4, accumulate=2)
    assert other == pytest.approx(weight, abs=1e-6)
    assert small["loss"] == pytest.approx(large["loss"], abs=1e-6)


def test_a_task_that_does_not_share_is_not_accumulated(tmp_path: Path) -> None:
    task = Line(tmp_path / "weights.pt")
    with pytest.raises(UsageError, match="does not share"):
        run_training(
            task, dataclasses.replace(settings(tmp_path), accumulate=2), choose_device("cpu"), lambda text: None
        )


def test_curves_show_every_figure_once_per_step(tmp_path: Path) -> None:
    descend(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 40, "seconds_per_step": 1.0, "loss": 9.0}\n')
        # Cut off when a run was killed; the resumed run wrote on in the same line.
        stream.write('{"step": 41, "lo{"step": 41, "loss": 1.0}\n')
    curves = read_curves(tmp_path / "metrics.jsonl")
    assert curves.keys() == {"loss", "valid_loss"}
    assert [step for step, _ in curves["loss"]] == list(range(1, 41))
    assert curves["loss"][-1] == (40, 9.0)
    picture = draw_curves(curves)
    flat = draw_curves({"loss": [(1, 2.0), (2, 2.0)]})
    assert picture.size == (3 * WIDTH, HEIGHT) == flat.size
    left, middle, right = (picture.crop((place * WIDTH, 0, (place + 1) * WIDTH, HEIGHT)) for place in range(3))
    assert STROKE in dict.fromkeys(left.getdata()) and STROKE in dict.fromkeys(middle.getdata())
    assert right.getcolors() == [(WIDTH * HEIGHT, (255, 255, 255))]


def test_the_average_stands_in_for_its_module_and_gives_way_again() -> None:
    module = nn.Linear(3, 2)
    average, before = MovingAverage(module), module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    with average.in_place_of(module):
        assert torch.equal(module.weight, before)
    assert torch.equal(module.weight, before + 1.0)
