"""How many candidates a call tries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pigeon_cli.pipeline.settings import AUTO_DIALS, SPARE_DRAWINGS, Choices, resolve
from pigeon_cli.weights.spec_file import spec_text
from pigeon_cli.weights.store import ModelFolder
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def thrice(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A model that draws three candidates of every position of ``auto``."""
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny-model"))
    spec = replace(folder.spec, sampling=replace(folder.spec.sampling, auto_samples=3))
    (folder.path / "config.json").write_text(spec_text(spec), encoding="utf-8")
    return ModelFolder(folder.path)


def tries(model: ModelFolder, choices: Choices) -> tuple[int, int]:
    """(dial positions, samples of each)."""
    settings = resolve(model, choices)
    assert len(settings.tries) == len(settings.dials) * settings.samples
    return len(settings.dials), settings.samples


def test_auto_draws_the_models_number_of_candidates_at_every_position(thrice: ModelFolder, tmp_path: Path) -> None:
    eleven = len(AUTO_DIALS)
    assert tries(thrice, {}) == (eleven, 3)
    assert tries(thrice, {"count": 3 * eleven + 1}) == (eleven, 4)
    assert tries(write_tiny_model(tmp_path), {}) == (eleven, 1)


def test_a_fixed_position_draws_what_was_asked_for_and_some_to_spare(thrice: ModelFolder) -> None:
    assert tries(thrice, {"dials": [0.3], "count": 2}) == (1, 2 + SPARE_DRAWINGS)
    assert tries(thrice, {"dials": [0.3], "samples": 1}) == (1, 1)
