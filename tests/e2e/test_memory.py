"""A prompt that names a drawing which the model knows by heart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch
from typer.testing import CliRunner, Result

from pigeon_cli.cli.main import app
from pigeon_cli.core.configs import MemoryConfig
from pigeon_cli.models.memory import Memory
from pigeon_cli.pipeline.recall import MEMORY_LIST
from pigeon_cli.report.json_report import read_schema
from pigeon_cli.weights.checkpoint import save_part
from pigeon_cli.weights.spec_file import spec_text
from pigeon_cli.weights.store import ModelFolder
from tests.tiny_model import write_tiny_model

Pigeon = Callable[..., Result]
CAT = tuple(range(18))
FOX = tuple(reversed(range(10)))


@pytest.fixture
def remembering(tmp_path: Path) -> ModelFolder:
    """A tiny model that knows a cat and a fox."""
    folder = write_tiny_model(tmp_path / "remembering")
    config = MemoryConfig(2, folder.spec.tokenizer.tokens)
    (folder.path / "config.json").write_text(spec_text(replace(folder.spec, memory=config)))
    memory = Memory(config)
    for row, codes in enumerate((CAT, FOX)):
        memory.codes[row, : len(codes)] = torch.tensor(codes)
    found = ModelFolder(folder.path)
    save_part(found.part("memory"), memory.state_dict())
    (folder.path / MEMORY_LIST).write_text("happy cat\tpet\nred fox\tanimal\n", encoding="utf-8")
    return found


def test_a_prompt_brings_back_the_drawing_that_it_names(pigeon: Pigeon, liked: Path, remembering: ModelFolder) -> None:
    result = pigeon("--history", liked, "--prompt", "a red fox", "-n", "2", "--json", "--model", remembering.path)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    jsonschema.validate(report, read_schema())
    assert report["recalled"] == "red fox"
    assert "memory.safetensors" in {file["name"] for file in report["model"]["weights"]}
    assert {tuple(each["reference_tokens"]["codes"]) for each in report["candidates"]} == {FOX}
    # Unlike a reference that was imagined, this one is worth agreeing with.
    assert all(each["prescore_parts"]["reference"] is not None for each in report["candidates"])


def test_other_words_are_drawn_by_the_base_model(pigeon: Pigeon, liked: Path, remembering: ModelFolder) -> None:
    result = pigeon("--history", liked, "--prompt", "blue whale", "-n", "2", "--json", "--model", remembering.path)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["recalled"] is None
    assert tuple(report["candidates"][0]["reference_tokens"]["codes"]) not in (CAT, FOX)


def test_the_masks_are_those_of_the_drawing(
    liked: Path, remembering: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--history", str(liked), "--prompt", "cat", "--json", "--device", "cpu", "--model", str(remembering.path)]
    result = CliRunner().invoke(app, ["inspect-mask", *words])
    assert result.exit_code == 0, result.output
    masks = json.loads(result.stdout)
    jsonschema.validate(masks, read_schema("masks-v1.schema.json"))
    assert masks["recalled"] == "happy cat"
    assert tuple(masks["images"][-1]["codes"]) == CAT


def test_a_model_without_its_memory_is_incomplete(pigeon: Pigeon, liked: Path, remembering: ModelFolder) -> None:
    remembering.part("memory").unlink()
    result = pigeon("--history", liked, "--prompt", "cat", "--model", remembering.path)
    assert result.exit_code == 3
    assert "memory.safetensors" in result.stderr
