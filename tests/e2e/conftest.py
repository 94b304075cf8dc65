"""A tiny random model on disk, a few images, and the command as a user calls it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pigeon_cli.cli.main import app
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.pipeline.session import Session
from pigeon_cli.weights.store import ModelFolder
from tests.tiny_model import write_tiny_model


def picture(seed: int, size: int = 40) -> Image.Image:
    """Blocks of colours with noise, so that the tiny tokenizer sees different codes."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (5, 5, 3)).repeat(8, 0).repeat(8, 1)
    noisy = np.clip(blocks + rng.normal(0, 20, blocks.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).resize((size, size))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return write_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def session(tiny: ModelFolder) -> Session:
    return Session(tiny, choose_device("cpu"))


@pytest.fixture(scope="session")
def liked_images() -> list[Image.Image]:
    return [picture(seed) for seed in range(5)]


@pytest.fixture
def liked(tmp_path: Path, liked_images: list[Image.Image]) -> Path:
    folder = tmp_path / "liked"
    folder.mkdir()
    for number, image in enumerate(liked_images, start=1):
        image.save(folder / f"{number}.png")
    return folder


@pytest.fixture
def wish(tmp_path: Path) -> Path:
    picture(99).save(tmp_path / "fox.png")
    (tmp_path / "fox.txt").write_text("red fox\n")
    return tmp_path / "fox.png"


@pytest.fixture
def pigeon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: ModelFolder) -> Callable[..., Result]:
    """Runs ``pigeon generate`` on the tiny model in the test's folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Result:
        words = ["generate", "--device", "cpu", *map(os.fspath, arguments)]
        return CliRunner().invoke(app, words if "--model" in words else [*words, "--model", os.fspath(tiny.path)])

    return run
