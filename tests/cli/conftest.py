"""A pipeline that draws plain squares, put where the command looks for the real one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pigeon_cli.cli.main import app
from pigeon_cli.core.records import (
    Candidate,
    DeviceRecord,
    GenerateRequest,
    ModelRecord,
    RunReport,
    ScoreParts,
    TokenMask,
    WeightsFile,
)

HISTORY_LIMIT = 12
ODD_NAMES = (
    ('two  words \'and "quotes".png', 'two  words \'and "quotes"'),
    ("👩‍🚀🦊.png", "👩‍🚀🦊"),
    ("line\nbreak\x1b[31m.png", "line_break_[31m"),
    ("[red]bold[]].png", "[red]bold[]]"),
    (os.fsdecode(b"caf\xe9.png"), "caf_"),
    ("x" * 240 + ".png", "x" * 120),
)
"""Names of files, and what the names of images made from them begin with."""


@dataclass
class FakePipeline:
    """Remembers requests; ``fails_with`` is raised after the first line of progress."""

    requests: list[GenerateRequest] = field(default_factory=list)
    fails_with: BaseException | None = None
    warnings: tuple[str, ...] = ()

    def generate(self, request: GenerateRequest, progress: Callable[[str, int, int], None]) -> SimpleNamespace:
        self.requests.append(request)
        progress("encode", 0, 6)
        if self.fails_with is not None:
            raise self.fails_with
        progress("draw", 1, request.count)
        candidates = tuple(candidate(rank) for rank in (None, *range(1, request.count + 1)))
        report = RunReport(
            model=ModelRecord("mini", (WeightsFile("unet.safetensors", "0" * 64),)),
            device=DeviceRecord("cpu", "the only one", "bfloat16", 2),
            settings={**request.settings(), "steps": 8, "guidance": 3.0},
            history=request.history,
            reference=request.reference,
            prompt=request.prompt,
            candidates=candidates,
            history_tokens=tuple(TokenMask((0, 2), (1,), (0.5, 0.1, float("nan"))) for _ in request.used_history),
            peak_memory_bytes=2**30,
            versions={"torch": "2.13.0"},
            warnings=self.warnings,
        )
        images = [Image.new("RGB", (8, 8), (rank, 0, 0)) for rank in range(request.count)]
        return SimpleNamespace(images=images, report=report)


def candidate(rank: int | None) -> Candidate:
    parts = ScoreParts(history=0.5, reference=0.25)
    return Candidate(
        0.1, 0, (1, 2, 3), 5, 1, 0.75, parts, 0.375, parts, rank, rank is not None, "scored", TokenMask((0,), (1,))
    )


def find_fake_model(name: str) -> SimpleNamespace:
    """Stands for any model folder: what the command asks of it before it runs the pipeline."""
    return SimpleNamespace(spec=SimpleNamespace(name="mini", history_size=HISTORY_LIMIT), mapped=False)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    fake = FakePipeline()
    module = ModuleType("pigeon_cli.pipeline.run")
    module.generate = fake.generate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("pigeon_cli.weights.store.find_model", find_fake_model)
    return fake


@pytest.fixture
def pigeon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs ``pigeon`` in the test's folder, with stdout and stderr apart."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, [os.fspath(argument) for argument in arguments], input=stdin)

    return run


def picture(path: Path, shade: int = 0) -> Path:
    """A small PNG; ``shade`` makes its content differ from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, 10, 20)).save(path)
    return path


@pytest.fixture
def liked(tmp_path: Path) -> Path:
    """A folder of six liked images, ``1.png`` to ``10.png`` with gaps, so that natural order shows."""
    for shade in (1, 2, 3, 8, 9, 10):
        picture(tmp_path / "liked" / f"{shade}.png", shade)
    return tmp_path / "liked"


@pytest.fixture
def wish(tmp_path: Path) -> Path:
    return picture(tmp_path / "red fox.png", 200)
