"""Files that are no plain tensors are refused by name, and nothing in them runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights import keymaps
from pigeon_cli.weights.keymaps import KeyMap
from pigeon_cli.weights.official import OfficialFolder
from pigeon_cli.weights.published import read_tensors
from pigeon_cli.weights.published_alignment import find_alignment
from tests.keymaps.official_files import loaded, write_tensors

Copy = Callable[[Path], Path]


class Malicious:
    """Makes a folder when it is unpickled without care."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("keymap", [keymaps.ENCODER, keymaps.LANGUAGE, keymaps.UNET], ids=lambda entry: entry.part)
def test_a_malicious_pickle_is_refused_and_runs_nothing(
    sharded: Path, copy_of: Copy, tmp_path: Path, keymap: KeyMap
) -> None:
    folder, trace = OfficialFolder(copy_of(sharded)), tmp_path / "it-ran"
    path = folder.sources(keymap.part)[0].files.shards[0]
    path.unlink()
    torch.save({"cls_token": torch.zeros(3), "more": Malicious(trace)}, path)
    with pytest.raises(WeightsError, match="refused") as caught:
        loaded(folder, keymap.part)
    assert str(path) in caught.value.message and caught.value.hint
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file would have run something"


def test_a_malicious_pickle_in_a_checkpoint_is_refused(
    sharded: Path, checkpoints: Path, copy_of: Copy, tmp_path: Path
) -> None:
    alignment = find_alignment(copy_of(checkpoints))
    [path] = alignment.source("adapter").files.shards
    path.unlink()
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "it-ran"), protocol=2))
    folder = OfficialFolder(sharded, alignment)
    with pytest.raises(WeightsError, match="refused"):
        loaded(folder, "adapter")
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, ending: str, keep: float) -> None:
    path = tmp_path / f"weights{ending}"
    write_tensors(path, {"first": torch.ones(400), "second": torch.ones(3)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, ending: str) -> None:
    with pytest.raises(WeightsError) as caught:
        read_tensors(tmp_path / f"weights{ending}")
    assert f"weights{ending}" in caught.value.message


@pytest.mark.parametrize(
    "content", [torch.zeros(3), [torch.zeros(3)], {"model": {"key": torch.zeros(3)}}, {1: torch.zeros(3)}]
)
def test_a_pickle_that_is_no_table_of_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.bin")
    with pytest.raises(WeightsError, match=r"weights\.bin is no plain table"):
        read_tensors(tmp_path / "weights.bin")


def test_a_pickle_in_the_form_before_zip_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save({"key": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert torch.equal(read_tensors(path)["key"], torch.arange(3.0))
