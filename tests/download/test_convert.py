"""Pickles become safetensors: the same tensors, under the same names, and nothing in them runs."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.convert import convert_pickle
from tests.download.conftest import REPOSITORY, Downloader, tiny_catalog
from tests.download.hub_server import Hub, sha256
from tests.download.test_fetch import failure


def pickled(value: object, **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


@pytest.fixture
def shards(hub: Hub, download: Downloader) -> list[dict[str, torch.Tensor]]:
    """A repository with two shards as pickles, and their index."""
    tables = [{f"layer.{number}.weight": torch.full((3, 2), float(number), dtype=torch.bfloat16)} for number in (1, 2)]
    names = [f"language_model/pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    weights = {key: name.rpartition("/")[2] for table, name in zip(tables, names, strict=True) for key in table}
    index = json.dumps({"metadata": {"total_size": 24}, "weight_map": weights}).encode()
    hub.repositories[REPOSITORY] = {
        **{name: pickled(table) for name, table in zip(names, tables, strict=True)},
        "language_model/pytorch_model.bin.index.json": index,
    }
    download.catalog = tiny_catalog("language_model/*.bin", "language_model/*.json")
    return tables


def files_of(download: Downloader) -> set[str]:
    return {str(path.relative_to(download.folder.path)) for path in download.folder.path.rglob("*") if path.is_file()}


CONVERTED = {
    "manifest.json",
    "language_model/pytorch_model-00001-of-00002.safetensors",
    "language_model/pytorch_model-00002-of-00002.safetensors",
    "language_model/pytorch_model.safetensors.index.json",
}


def test_shards_are_converted_and_the_originals_go(download: Downloader, hub: Hub, shards) -> None:
    manifest = download()
    assert files_of(download) == CONVERTED
    for number, table in enumerate(shards, 1):
        found = load_file(download.folder.path / f"language_model/pytorch_model-0000{number}-of-00002.safetensors")
        assert {key: tensor.tolist() for key, tensor in found.items()} == {k: v.tolist() for k, v in table.items()}
        assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    index = json.loads((download.folder.path / "language_model/pytorch_model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {name.rpartition("/")[2] for name in CONVERTED if "-of-" in name}
    originals = {origin.path: origin.sha256 for file in manifest.files for origin in file.origins}
    assert originals == {name: sha256(data) for name, data in hub.repositories[REPOSITORY].items()}


def test_originals_can_be_kept(download: Downloader, hub: Hub, shards) -> None:
    download(keep=True)
    assert files_of(download) == CONVERTED | set(hub.repositories[REPOSITORY])


def test_a_run_that_ends_between_two_shards_converts_only_the_rest(
    download: Downloader, hub: Hub, shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pigeon_cli.weights import convert

    done: list[str] = []

    def interrupted(source: Path, target: Path) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(target.name)
        convert_pickle(source, target)

    monkeypatch.setattr(convert, "convert_pickle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download()
    monkeypatch.setattr(convert, "convert_pickle", convert_pickle)
    asked = len(hub.asked)
    download()
    assert [entry.server for entry in hub.asked[asked:] if entry.server == "cdn"] == [], "both were fetched already"
    assert files_of(download) == CONVERTED


class Bomb:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.place),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "old", "plain"])
def test_a_malicious_pickle_is_refused_and_nothing_runs(
    download: Downloader, hub: Hub, tmp_path: Path, form: str
) -> None:
    table = {"weight": torch.zeros(1), "more": Bomb(tmp_path / "ran")}
    old = {"_use_new_zipfile_serialization": False}
    data = pickle.dumps(table) if form == "plain" else pickled(table, **(old if form == "old" else {}))
    hub.repositories[REPOSITORY] = {"model.bin": data}
    download.catalog = tiny_catalog("model.bin")
    error = failure(download)
    assert "model.bin" in error.message and "not run" in error.message
    assert not (tmp_path / "ran").exists()
    assert download.folder.state == "incomplete"
    hub.repositories[REPOSITORY] = {"model.bin": pickled({"weight": torch.ones(1)})}
    download()
    assert files_of(download) == {"manifest.json", "model.safetensors"}


@pytest.mark.parametrize("value", [[torch.zeros(1)], {"a": 1}, {1: torch.zeros(1)}])
def test_only_tables_of_names_and_tensors_are_converted(tmp_path: Path, value: object) -> None:
    (tmp_path / "model.bin").write_bytes(pickled(value))
    with pytest.raises(WeightsError, match=r"model\.bin"):
        convert_pickle(tmp_path / "model.bin", tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


@pytest.mark.parametrize("data", [b"", b"no pickle", pickled({"a": torch.zeros(100)})[:-100]])
def test_what_is_no_pickle_at_all_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(WeightsError, match=r"model\.bin"):
        convert_pickle(tmp_path / "model.bin", tmp_path / "model.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_views_and_shared_memory_survive(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    table = {"base": base, "tied": base, "row": base[1], "turned": base.t(), "empty": torch.zeros(0), "one": base[0, 0]}
    (tmp_path / "model.bin").write_bytes(pickled(table, _use_new_zipfile_serialization=zipped))
    convert_pickle(tmp_path / "model.bin", tmp_path / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {k: v.tolist() for k, v in table.items()}
