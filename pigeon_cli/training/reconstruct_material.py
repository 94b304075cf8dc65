"""What stage 1 learns from: the icon dataset, where right answers are known, or people's own images."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from pigeon_cli.core.errors import UsageError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.training.alignments import AlignOptions
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.code_cache import ORIGIN, CodeOrigin, build_code_cache
from pigeon_cli.training.code_sheet import request_sheet
from pigeon_cli.training.data.dataset import INDEX_FILE, load_dataset
from pigeon_cli.training.data.people import read_people
from pigeon_cli.training.loop import LoopSettings, TrainingTask
from pigeon_cli.training.people_codes import Codes, WindowSampler, coded_window, encode_people
from pigeon_cli.training.stages import StageOptions, build_task, frozen_tokenizer, text_processor
from pigeon_cli.training.tasks.reconstruct import ReconstructTask
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.store import ModelFolder

HELD_OUT: Final = 64


@dataclass(frozen=True)
class ReconstructOptions:
    """What stage 1 alone is told."""

    data: Path
    runs: Path | None = None
    """Folder of run folders; ``RUNS/codes`` holds encoded icons. Default: within the alignment."""
    target: str | None = None
    """``self``, ``paired`` or ``mixed``; default: what the data has."""
    split: str = "windows"
    """How people's own data is split: by windows, or users kept apart."""
    looks: int = 40
    cells: int = 384
    """Where icons are yet to be encoded, looks per set and pictures per look."""
    init_from: Path | None = None


@dataclass
class Material(ABC):
    """Data of one kind, ready to be encoded and learned from, and what there is to do that with."""

    own: ReconstructOptions
    folder: ModelFolder
    device: DeviceChoice
    options: AlignOptions
    runs: Path
    say: Callable[[str], None]
    target: str = field(init=False)

    @property
    @abstractmethod
    def count(self) -> int | None:
        """Requests that there are, ``None`` where they never end."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Of the data."""

    @abstractmethod
    def encode(self) -> None:
        """Codes that are not there yet; the main process does it, all others read them."""

    @abstractmethod
    def task(self, settings: LoopSettings) -> TrainingTask:
        """Stage 1 on this data."""


@dataclass
class IconMaterial(Material):
    """What ``pigeon train data`` made."""

    def __post_init__(self) -> None:
        self.target = self.own.target or "mixed"
        self.batches = IconBatches(load_dataset(self.own.data), self.device.device)

    @property
    def count(self) -> None:
        return None

    @property
    def sha256(self) -> str:
        return sha256_of(self.own.data / INDEX_FILE)

    def encode(self) -> None:
        """What ``pigeon train encode`` does, for an alignment where it was not done."""
        codes, own = self.runs / "codes", self.own
        if self.options.out is not None and not (codes / ORIGIN).is_file():
            tokenizer, origin = frozen_tokenizer(self.folder, self.device), CodeOrigin.of(self.folder, own.data)
            build_code_cache(tokenizer, self.batches, codes, origin, own.looks, own.cells, self.options.seed, self.say)

    def task(self, settings: LoopSettings) -> TrainingTask:
        options = self.options
        stage = StageOptions(
            self.own.data, self.folder.path, self.runs, target=self.target, out=options.out,
            gradient_checkpointing=options.gradient_checkpointing,
        )  # fmt: skip
        return build_task("reconstruct", self.folder, self.batches, stage, settings, self.device)


@dataclass
class PeopleMaterial(Material):
    """Users' own images: nobody knows another right answer than the image itself."""

    def __post_init__(self) -> None:
        own = self.own
        if own.target not in (None, "self"):
            raise UsageError(f"{own.data} has no pairs of drawings for --target {own.target}", "use --target self")
        self.target = "self"
        self.people = read_people(own.data, own.split)
        for warning in self.people.warnings:
            self.say(warning)

    @property
    def count(self) -> int:
        return len(self.people.of_split("train"))

    @property
    def sha256(self) -> str:
        return self.people.sha256

    def encode(self) -> None:
        assert self._codes

    @cached_property
    def _codes(self) -> dict[Path, Codes]:
        paths = [one.image for window in self.people.windows for one in window.images]
        own_hash = sha256_of(self.folder.part("tokenizer"))
        tokenizer = frozen_tokenizer(self.folder, self.device)
        return encode_people(tokenizer, paths, self.runs / "codes.jsonl", own_hash, self.say)

    def task(self, settings: LoopSettings) -> TrainingTask:
        sampler = WindowSampler(self.people, self._codes, text_processor(self.folder))
        if not sampler.has_strangers:
            self.say("there is one user, so nobody shows the mask a stranger: the mask generator stays the model's")
        windows = self.people.of_split("valid") or self.people.of_split("train")
        # Windows lie user by user: the first ones would be one user's.
        chosen = random.Random(stream_seed(0, "held-out windows")).sample(windows, min(HELD_OUT, len(windows)))
        held_out = [coded_window(window, self._codes) for window in chosen]
        return ReconstructTask(
            self.folder,
            frozen_tokenizer(self.folder, self.device),
            sampler,
            {"valid": held_out},
            request_sheet(self.folder, self.device, held_out),
            settings.batch,
            settings.steps,
            None if self.options.out is None else ModelFolder(self.options.out),
            self.options.gradient_checkpointing,
        )
