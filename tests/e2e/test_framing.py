"""A reference framed as the liked images are: the same in generate and inspect-mask, and said in both reports."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner, Result

from pigeon_cli.cli.main import app
from pigeon_cli.report.json_report import read_schema
from pigeon_cli.weights.spec_file import spec_text
from pigeon_cli.weights.store import ModelFolder
from tests.tiny_model import write_tiny_model

Pigeon = Callable[..., Result]


def drawing(path: Path, side: int, shade: int = 0) -> Path:
    """A dark square of ``side`` pixels in the middle of 128."""
    image = Image.new("RGB", (128, 128), (255, 255, 255))
    start = (128 - side) // 2
    ImageDraw.Draw(image).rectangle((start, start, start + side - 1, start + side - 1), fill=(shade, 30, 90))
    image.save(path)
    return path


@pytest.fixture
def framing(tmp_path: Path) -> ModelFolder:
    folder = write_tiny_model(tmp_path / "model")
    (folder.path / "config.json").write_text(spec_text(replace(folder.spec, frame_reference=True)))
    return ModelFolder(folder.path)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A history of drawings that fill half of their frames."""
    folder = tmp_path / "small"
    folder.mkdir()
    for number in range(3):
        drawing(folder / f"{number}.png", 64, shade=40 * number)
    return folder


def test_generate_and_inspect_mask_read_the_same_smaller_reference(
    pigeon: Pigeon, small: Path, framing: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = drawing(tmp_path / "large.png", 120)
    result = pigeon(
        "--history", small, "--ref", large, "--ref-mask", "0.5", "-n", "1", "--json", "--model", framing.path
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    jsonschema.validate(report, read_schema())
    assert report["reference_framing"] == {"scale": pytest.approx(64 / 120, abs=0.02), "degrees": 0}

    monkeypatch.chdir(tmp_path)
    words = [
        "--history",
        small,
        "--ref",
        large,
        "--ref-mask",
        "0.5",
        "--json",
        "--device",
        "cpu",
        "--model",
        framing.path,
    ]
    result = CliRunner().invoke(app, ["inspect-mask", *map(os.fspath, words)])
    assert result.exit_code == 0, result.output
    masks = json.loads(result.stdout)
    jsonschema.validate(masks, read_schema("masks-v1.schema.json"))
    assert masks["reference_framing"] == report["reference_framing"]
    assert masks["images"][-1]["codes"] == report["candidates"][0]["reference_tokens"]["codes"]


def test_a_reference_that_is_small_already_stays_as_it_is(
    pigeon: Pigeon, small: Path, framing: ModelFolder, tmp_path: Path
) -> None:
    reference = drawing(tmp_path / "wish.png", 60)
    result = pigeon("--history", small, "--ref", reference, "-n", "1", "--json", "--model", framing.path)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["reference_framing"] == {"scale": 1.0, "degrees": 0}
