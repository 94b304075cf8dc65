"""``--model sticker`` and folders of the published layout: where model, alignment and CLIP are looked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.manifest import Manifest, StoredFile, complete
from pigeon_cli.weights.official import HASHED_BELOW, OfficialFolder
from pigeon_cli.weights.published_alignment import find_alignment, pack
from pigeon_cli.weights.store import ModelFolder, find_model

Copy = Callable[[Path], Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIGEON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def seal(folder: Path) -> Path:
    """The manifest that ``pigeon download`` writes last."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = tuple(
        StoredFile(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path), ()) for path in paths
    )
    complete(folder, Manifest(folder.name, "hub:test/model@main", "", None, files))
    return folder


@pytest.fixture
def downloaded(cache: Path, any_form: Path, checkpoints: Path) -> Path:
    """The cache after ``pigeon download poster``, without CLIP."""
    cache.mkdir()
    seal(Path(shutil.copytree(any_form, cache / "lavit-7b-v2")))
    pack(find_alignment(checkpoints), cache / "pigeon-poster")
    seal(cache / "pigeon-poster")
    return cache


def official(name: str | Path) -> OfficialFolder:
    found = find_model(os.fspath(name))
    assert isinstance(found, OfficialFolder)
    return found


def test_a_downloaded_combination(downloaded: Path) -> None:
    model = official("poster")
    assert model.path == downloaded / "lavit-7b-v2"
    assert model.wordings == ("poster", "sticker")
    assert (model.mapped, model.clip, model.missing()) == (True, None, [])
    assert model.aligned.lora.rank == 3
    assert {file.known_from for file in model.record().weights} == {"download"}


@pytest.mark.parametrize("lost", ["lavit-7b-v2/manifest.json", "pigeon-poster/alignment.safetensors"])
def test_an_incomplete_combination_says_what_to_type(downloaded: Path, lost: str) -> None:
    (downloaded / lost).unlink()
    with pytest.raises(WeightsError, match="is not complete") as caught:
        find_model("poster")
    assert caught.value.hint == "type: pigeon download poster"
    shutil.rmtree(downloaded / lost.partition("/")[0])
    with pytest.raises(WeightsError, match="is not in the cache"):
        find_model("poster")


def test_an_alignment_lies_in_the_folder_or_beside_it(
    sharded: Path, checkpoints: Path, tmp_path: Path, copy_of: Copy
) -> None:
    folder = copy_of(sharded)
    assert official(folder).alignment is None
    with pytest.raises(WeightsError, match="without an alignment"):
        official(folder).tensor_files("lora")
    shutil.copytree(checkpoints, tmp_path / "pigeon-poster")
    assert official(folder).wordings[0] == "poster"
    shutil.copytree(checkpoints, folder / "alignment")
    assert official(folder).wordings[0] == "sticker", "what lies in the folder comes first"
    assert official(folder).aligned.lora.rank == 3


def test_a_folder_without_a_manifest_is_hashed_only_as_far_as_it_is_small(
    sharded: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(sharded)
    name = "visual_tokenizer/eva_vitg_psz14.bin"
    limit = (folder / name).stat().st_size - 1
    assert limit < HASHED_BELOW
    monkeypatch.setattr("pigeon_cli.weights.official.HASHED_BELOW", limit)
    files = {file.name: file for file in official(folder).record().weights}
    assert (files[name].sha256, files[name].known_from) == (None, "nothing")
    small = files["language_model/config.json"]
    assert (small.sha256, small.known_from) == (sha256_of(folder / small.name), "reading")
    seal(folder)
    known = {file.name.partition("/")[2]: file for file in official(folder).record().weights}
    assert (known[name].sha256, known[name].known_from) == (sha256_of(folder / name), "download")


@pytest.mark.parametrize(
    "content", ['{"name": "an app"}', '{"format": 1}', '{"format": "webp", "files": []}', "[]", "no json", "\xff"]
)
def test_a_manifest_of_somebody_else_is_left_alone(
    sharded: Path, checkpoints: Path, copy_of: Copy, tmp_path: Path, content: str
) -> None:
    folder = copy_of(sharded)
    shutil.copytree(checkpoints, folder / "alignment")
    expected = official(folder).record()
    for place in (tmp_path, folder, folder / "language_model", folder / "alignment"):
        (place / "manifest.json").write_text(content, encoding="latin-1")
    assert official(folder).record() == expected
    assert {file.known_from for file in expected.weights} == {"reading"}


def test_what_changed_since_the_download_is_read(downloaded: Path) -> None:
    path = downloaded / "lavit-7b-v2" / "language_model" / "config.json"
    path.write_text(path.read_text() + "\n")
    (known,) = [
        file
        for file in official(downloaded / "lavit-7b-v2").record().weights
        if file.name.endswith("language_model/config.json")
    ]
    assert (known.sha256, known.known_from) == (sha256_of(path), "reading")


def test_missing_files_are_named(sharded: Path, copy_of: Copy) -> None:
    folder = copy_of(sharded)
    (folder / "visual_tokenizer" / "eva_vitg_psz14.bin").unlink()
    with pytest.raises(WeightsError, match=r"lacks visual_tokenizer/eva_vitg_psz14\.bin"):
        find_model(os.fspath(folder))


def test_other_names_are_folders_of_ours(tmp_path: Path) -> None:
    assert isinstance(find_model("mini"), ModelFolder)
    with pytest.raises(WeightsError, match="there is no model") as caught:
        find_model("nowhere")
    assert "mini, sticker, poster" in caught.value.hint
    with pytest.raises(WeightsError, match=r"lacks config\.json"):
        find_model(os.fspath(tmp_path))


def test_another_alignment_takes_the_place_of_the_model_s_own(downloaded: Path, checkpoints: Path) -> None:
    model = official("poster")
    other = model.aligned_by(checkpoints)
    assert other.wordings == model.wordings
    assert other.aligned.lora_file.is_relative_to(checkpoints)
    with pytest.raises(WeightsError, match="there is no"):
        model.aligned_by(model.path)
