"""A tiny icon dataset and a tiny model of random weights, and preference pairs made with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pigeon_cli.training.data.icons import build_dataset
from pigeon_cli.training.make_pairs import PairOptions, make_pairs
from pigeon_cli.training.pairs import NEAR_TIES
from pigeon_cli.weights.store import ModelFolder
from tests.tiny_icons import write_icon_packages
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def icons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("data")
    write_icon_packages(source)
    build_dataset(source, out, size=32)
    return out


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def pairs_file(icons: Path, tiny: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few dozen pairs; a scorer of random weights finds all pictures much alike, so near-ties are let in."""
    out = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    options = PairOptions(icons, str(tiny.path), out, score="answer", dials=(0.0, 0.5, 1.0), requests=40, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NEAR_TIES, "answer", 1e-4)
        make_pairs(options, lambda text: None)
    return out
