"""The one training loop: every stage is a task, every run resumes exactly, every number goes to a JSONL file.

Exact resume: the batch, the dropout and the noise of a step are functions of (seed, stage, step) alone, so a
checkpoint holds weights, optimizer and step and nothing about random generators.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pigeon_cli.core.errors import InputError, OutputError, UsageError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.training.processes import Processes, Share
from pigeon_cli.weights.checkpoint import load_part
from pigeon_cli.weights.store import ModelFolder


@dataclass(frozen=True)
class LoopSettings:
    """Length and optimizer of a run; seconds are wall-clock."""

    run_folder: Path
    steps: int
    batch: int
    learning_rate: float
    seed: int = 0
    warmup: int = 100
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    checkpoint_seconds: float = 180.0
    evaluate_every: int = 500
    log_every: int = 20
    resume: bool = False
    accumulate: int = 1
    """Batches whose gradients are averaged into one step."""
    patience: int | None = None
    """Evaluations in a row that may bring no better ``TrainingTask.watched`` before the run ends; the best weights are
    then what is exported."""

    @property
    def checkpoint(self) -> Path:
        """What an interrupted run goes on from."""
        return self.run_folder / "checkpoint.pt"


class TrainingTask(ABC):
    """What one stage trains: its modules, its loss, its evaluation and the weights files it exports."""

    name: str
    modules: dict[str, nn.Module]
    """Everything a checkpoint must hold, by name; buffers included."""
    share: Share = Share()
    """Which part of a step's batch :meth:`loss` is about; the loop sets it."""
    shares: bool = False
    """Whether :meth:`loss` heeds ``share``, without which there are neither accumulation nor several processes."""
    watched: str = "valid_loss"
    patient_from: int = 0
    """Steps after which patience begins: before, nothing that ``watched`` shows has been learned."""
    """The figure of :meth:`evaluate` that falls while the task learns."""

    @abstractmethod
    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        """Losses of one freshly drawn batch; ``"loss"`` is differentiated, the others are only logged."""

    @abstractmethod
    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        """Figures on fixed valid data, after drawing a PNG sheet into ``folder``."""

    @abstractmethod
    def export(self) -> None:
        """Write this stage's weights files into the model folder."""

    def start(self) -> None:  # noqa: B027 - most stages start from the random weights of their modules
        """Compute first weights from the data, where there are neither a checkpoint nor another model's weights."""

    def start_from(self, folder: ModelFolder) -> None:
        """Begin with the weights of another model folder: every module whose file it has; strict, at least one."""
        present = {name: folder.part(name) for name in self.modules if folder.part(name).is_file()}
        if not present:
            raise InputError(f"{folder.path} holds no weights of the stage {self.name}", "name a complete model folder")
        for name, path in present.items():
            load_part(self.modules[name], path)

    def parameter_groups(self, settings: LoopSettings) -> list[dict[str, Any]]:
        """Optimizer groups: matrices decay, vectors do not."""
        parameters = [p for module in self.modules.values() for p in module.parameters() if p.requires_grad]
        matrices = [p for p in parameters if p.ndim >= 2]
        vectors = [p for p in parameters if p.ndim < 2]
        return [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]

    def after_step(self, step: int) -> None:  # noqa: B027 - most stages have nothing to do here
        """Moving averages, codebook restarts and the like; called after each optimizer step."""


def run_training(
    task: TrainingTask, settings: LoopSettings, device: DeviceChoice, say: Callable[[str], None]
) -> dict[str, float]:
    """Train ``task``; returns the figures of the last step.

    Raises :class:`OutputError` when the run folder cannot be written and :class:`InputError` when a run folder
    that already holds a checkpoint is used without ``resume``.
    """
    processes = Processes(device)
    if not task.shares and settings.accumulate * processes.count > 1:
        raise UsageError(
            f"the stage {task.name} does not share its batches out", "run it in one process and without --accumulate"
        )
    run = _Run(task, settings, device, say if processes.is_main else _say_nothing, processes)
    return run.carry_out()


def _say_nothing(text: str) -> None:
    pass


@dataclass
class Best:
    """The best evaluation so far, and how many have followed it."""

    step: int = 0
    waited: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    def beaten_by(self, step: int, figures: Mapping[str, float], watched: str) -> bool:
        """Take in the figures of ``step``; whether they are the best now."""
        better = not self.figures or figures[watched] < self.figures[watched]
        if better:
            self.step, self.figures = step, {**figures, "best_step": float(step)}
        self.waited = 0 if better else self.waited + 1
        return better


class _Run:
    def __init__(
        self,
        task: TrainingTask,
        settings: LoopSettings,
        device: DeviceChoice,
        say: Callable[[str], None],
        processes: Processes,
    ) -> None:
        self.task, self.settings, self.device, self.say, self.processes = task, settings, device, say, processes
        self.best = Best()
        self.checkpoint = settings.checkpoint
        groups = task.parameter_groups(settings)
        for group in groups:
            group.setdefault("lr", settings.learning_rate)
            group["base_lr"] = group["lr"]
        self.parameters = [p for group in groups for p in group["params"]]
        self.optimizers = optimizers_of(groups)
        self.figures: dict[str, float] = {}

    def carry_out(self) -> dict[str, float]:
        folder = self.settings.run_folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the run folder {folder}: {error}", "choose another with --runs") from error
        first = self._begin()
        started = saved = time.monotonic()
        for step in range(first, self.settings.steps):
            losses = self._step(step)
            last = step + 1 == self.settings.steps
            if last or (step + 1) % self.settings.log_every == 0:
                self._log(step, losses, (time.monotonic() - started) / (step + 1 - first))
            if last or (step + 1) % self.settings.evaluate_every == 0:
                last = self.processes.agree(self.processes.is_main and self._evaluate(step)) or last
            if self.processes.is_main and (last or time.monotonic() - saved > self.settings.checkpoint_seconds):
                self._save(step + 1)
                saved = time.monotonic()
            if last:
                break
        if self.processes.is_main:
            self._export(best=False)
        self.processes.wait()
        return self.figures | self.best.figures

    def _begin(self) -> int:
        if not self.checkpoint.exists():
            return 0
        if not self.settings.resume:
            raise InputError(
                f"the run folder {self.settings.run_folder} already holds a checkpoint",
                "add --resume to go on from it, or choose another folder with --runs",
            )
        state = torch.load(self.checkpoint, map_location=self.device.device, weights_only=True)
        for name, module in self.task.modules.items():
            module.load_state_dict(state["modules"][name])
        asked = self._rates()
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        if self._rates() != asked:
            raise InputError(
                f"the run in {self.settings.run_folder} was begun at another learning rate than "
                f"{self.settings.learning_rate:g}",
                "resume it with the --learning-rate that it was begun with, or begin anew in another run folder",
            )
        self.best = Best(**state.get("best", {}))
        self.say(f"{self.task.name}: resumed at step {state['step']}")
        return int(state["step"])

    def _rates(self) -> list[float]:
        """Full learning rates of all parameter groups."""
        return [group["base_lr"] for optimizer in self.optimizers for group in optimizer.param_groups]

    def _step(self, step: int) -> dict[str, Tensor]:
        share = learning_rate_share(step, self.settings.steps, self.settings.warmup)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * share
        for module in self.task.modules.values():
            module.train()
        parts = [self._backward(step, number) for number in range(self.settings.accumulate)]
        losses = {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}
        self.processes.average_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.task.after_step(step)
        return losses

    def _backward(self, step: int, number: int) -> dict[str, Tensor]:
        """Losses of the ``number``-th batch of this process; gradients are added to those that are there."""
        accumulate = self.settings.accumulate
        share = Share(self.processes.index * accumulate + number, self.processes.count * accumulate)
        # The whole batch is drawn by everybody, the noise of a part only by whom it belongs to.
        noise = ("torch", step) if share.index == 0 else ("torch", step, share.index)
        torch.manual_seed(stream_seed(self.settings.seed, self.task.name, *noise))
        rng = random.Random(stream_seed(self.settings.seed, self.task.name, "batch", step))
        self.task.share = share
        with self.device.autocast():
            losses = self.task.loss(step, rng)
        (losses["loss"] / accumulate).backward()
        return {name: value.detach() for name, value in losses.items()}

    def _log(self, step: int, losses: Mapping[str, Tensor], seconds: float) -> None:
        values = self.processes.average({name: float(value) for name, value in losses.items()})
        if not math.isfinite(values["loss"]):
            raise self._diverged(f"the loss is {values['loss']} at step {step + 1}")
        self.figures.update(values)
        if not self.processes.is_main:
            return
        self._append({"step": step + 1, "seconds_per_step": round(seconds, 4), **values})
        minutes = seconds * (self.settings.steps - step - 1) / 60
        shown = " ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.say(
            f"{self.task.name} {step + 1}/{self.settings.steps} {shown} · {seconds:.2f} s/step · {minutes:.1f} min left"
        )

    @torch.no_grad()
    def _evaluate(self, step: int) -> bool:
        """Figures on held-out data; whether the run has been patient for long enough."""
        for module in self.task.modules.values():
            module.eval()
        with self.device.autocast():
            figures = self.task.evaluate(step, self.settings.run_folder)
        self.figures.update(figures)
        self._append({"step": step + 1, "evaluation": figures})
        self.say(f"{self.task.name} {step + 1} valid " + " ".join(f"{k} {v:.4f}" for k, v in figures.items()))
        if self.settings.patience is None or step < self.task.patient_from:
            return False
        if self.best.beaten_by(step + 1, figures, self.task.watched):
            self._export(best=True)
        if self.best.waited < self.settings.patience:
            return False
        self.say(f"{self.task.name}: no better {self.task.watched} since step {self.best.step}; its weights are kept")
        return True

    def _export(self, best: bool) -> None:
        """Hand the weights on: always without ``patience``, else the best ones only."""
        if best or self.settings.patience is None:
            self.task.export()

    def _append(self, record: Mapping[str, Any]) -> None:
        with (self.settings.run_folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")

    def _diverged(self, what: str) -> InputError:
        return InputError(f"{self.task.name}: {what}", "begin anew in another run folder, with a lower --learning-rate")

    def _save(self, step: int) -> None:
        # The loss of a step is of the weights before it, and between two logged ones nobody looks.
        if not all(bool(parameter.isfinite().all()) for parameter in self.parameters):
            raise self._diverged(f"weights are no numbers any more after step {step}, and are not saved")
        state = {
            "step": step,
            "modules": {name: module.state_dict() for name, module in self.task.modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "best": asdict(self.best),
        }
        temporary = self.checkpoint.with_suffix(".part")
        try:
            torch.save(state, temporary)
            os.replace(temporary, self.checkpoint)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"cannot write {self.checkpoint}: {error}", "free space, then --resume") from error
        self._export(best=False)


def slowed(groups: list[dict[str, Any]], slow: set[nn.Parameter], learning_rate: float) -> list[dict[str, Any]]:
    """Optimizer groups cut in two, of which those with the parameters ``slow`` get a ``learning_rate`` of their own."""
    first = [group | {"params": [p for p in group["params"] if p in slow], "lr": learning_rate} for group in groups]
    return [*first, *without(groups, slow)]


def without(groups: list[dict[str, Any]], parameters: set[nn.Parameter]) -> list[dict[str, Any]]:
    """Optimizer groups less ``parameters``, which others hold."""
    return [group | {"params": [p for p in group["params"] if p not in parameters]} for group in groups]


def optimizers_of(groups: list[dict[str, Any]]) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for groups that say ``"muon": True``; those hold matrices inside a network alone."""
    turned = [group for group in groups if group.get("muon")]
    others = [group for group in groups if not group.get("muon")]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, betas=(0.9, 0.95))]
    if turned:
        # Steps of the size of AdamW's, so that one learning rate serves both.
        optimizers.append(torch.optim.Muon(turned, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def learning_rate_share(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up over ``warmup`` steps, then cosine from 1 down to 0.02 at ``steps``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class MovingAverage(nn.Module):
    """Exponential moving average of a module's parameters, kept as buffers so that checkpoints hold it."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self.names = {name: name.replace(".", "/") for name, _ in module.named_parameters()}
        for name, parameter in module.named_parameters():
            self.register_buffer(self.names[name], parameter.detach().clone().float())

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards ``module``; the decay grows with ``step`` so that the start is forgotten."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for name, parameter in module.named_parameters():
            self.get_buffer(self.names[name]).lerp_(parameter.detach().float(), 1 - decay)

    def state_of(self, module: nn.Module) -> dict[str, Tensor]:
        """The averaged parameters and the module's own buffers under the module's own names."""
        state = dict(module.state_dict())
        return state | {name: self.get_buffer(flat) for name, flat in self.names.items()}

    @contextmanager
    def in_place_of(self, module: nn.Module) -> Iterator[None]:
        """``module`` with the averaged parameters, for evaluation and export."""
        trained = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        module.load_state_dict(self.state_of(module))
        try:
            yield
        finally:
            module.load_state_dict(trained)


def load_from_run(module: nn.Module, checkpoint: Path, name: str, called: str, command: str) -> None:
    """Fill ``module`` with the one called ``name`` in a run's ``checkpoint``, wherever ``module`` is.

    Raises :class:`InputError`, which says ``called`` and the ``command`` that makes one, where it is not there.
    """
    try:
        module.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["modules"][name])
    except (OSError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(f"no {called} in {checkpoint}: {error}", f"run: {command}") from error
