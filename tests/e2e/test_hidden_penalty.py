"""What a candidate's score loses for what was hidden of the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pigeon_cli.engine.devices import choose_device
from pigeon_cli.pipeline.session import Session
from pigeon_cli.weights.spec_file import spec_text
from pigeon_cli.weights.store import ModelFolder
from tests.tiny_model import write_tiny_model


def test_scores_fall_by_the_share_of_the_reference_that_was_hidden(
    tmp_path: Path, liked_images: list[Image.Image]
) -> None:
    folder = write_tiny_model(tmp_path / "model")
    *history, reference = liked_images
    free = Session(folder, choose_device("cpu")).personalize(history, reference, count=11)
    assert folder.spec.scorer is not None
    strict_spec = replace(folder.spec, scorer=replace(folder.spec.scorer, hidden_penalty=2.0))
    (folder.path / "config.json").write_text(spec_text(strict_spec))
    strict = Session(ModelFolder(folder.path), choose_device("cpu")).personalize(history, reference, count=11)
    for before, after in zip(free.candidates, strict.candidates, strict=True):
        assert before.prescore is not None and after.prescore is not None
        hidden = before.dropped / (before.kept + before.dropped)
        assert after.prescore == pytest.approx(before.prescore - 2 * hidden, abs=1e-4)
        assert after.prescore_parts == before.prescore_parts
        if before.score is not None and after.score is not None:
            assert after.score == pytest.approx(before.score - 2 * hidden, abs=1e-4)
    assert len({candidate.dropped for candidate in free.candidates}) > 5
