"""Folders in the published layout, made once; tests that change one take a linked copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.keymaps.official_files import write_lora, write_model, write_stage_one

FORMS = {
    "pickles": (".bin", False),
    "safetensors": (".safetensors", False),
    "pickle shards": (".bin", True),
    "safetensors shards": (".safetensors", True),
}


@pytest.fixture(scope="session", params=FORMS)
def any_form(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model in each form that is read."""
    return write_model(tmp_path_factory.mktemp("official"), *FORMS[request.param])


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model as it is published: pickles, the language model in shards with an index."""
    return write_model(tmp_path_factory.mktemp("published"), *FORMS["pickle shards"])


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage-1 and a stage-2 checkpoint in one folder."""
    folder = tmp_path_factory.mktemp("alignment")
    write_stage_one(folder / "sft" / "checkpoint-500")
    write_lora(folder / "dpo" / "checkpoint-90" / "llama" / "policy", ".safetensors")
    return folder


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy by hard links; files must be removed before they are written anew."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / folder.name, copy_function=os.link))

    return copy
