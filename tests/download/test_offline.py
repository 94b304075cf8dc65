"""Without a network: a complete cache, or what huggingface_hub's own cache holds, or a clear error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from pigeon_cli.weights.sources import Access
from tests.download.conftest import BIG, REPOSITORY, SMALL, Downloader, tiny_catalog
from tests.download.hub_server import COMMIT, Hub, git_sha1, sha256
from tests.download.test_convert import pickled
from tests.download.test_fetch import failure


def fill_hub_cache(files: dict[str, bytes], commit: str = COMMIT) -> Path:
    """What ``hf download`` leaves: blobs named by hash, a snapshot of links, a ref."""
    repository = Path(constants.HF_HUB_CACHE) / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    for name, data in files.items():
        blob = repository / "blobs" / (git_sha1(data) if name.endswith(".json") else sha256(data))
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return repository / "blobs"


@pytest.fixture(params=["--offline", "HF_HUB_OFFLINE"])
def offline(request: pytest.FixtureRequest, download: Downloader, monkeypatch: pytest.MonkeyPatch) -> Downloader:
    if request.param == "--offline":
        download.access = Access(download.access.endpoint, offline=True)
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return download


def test_a_complete_cache_is_enough(download: Downloader, hub: Hub, wanted) -> None:
    download()
    hub.asked.clear()
    download.access = Access(hub.endpoint, offline=True)
    download()
    download.check_complete(wanted)
    assert hub.asked == []


def test_an_empty_cache_is_a_clear_error(offline: Downloader, hub: Hub) -> None:
    error = failure(offline)
    assert "offline" in error.message and REPOSITORY in error.message and "HF_HUB_OFFLINE" in error.hint
    assert hub.asked == []
    assert offline.folder.state == "absent"


def test_the_hubs_own_cache_is_enough(offline: Downloader, hub: Hub, wanted) -> None:
    fill_hub_cache(wanted)
    manifest = offline()
    offline.check_complete(wanted)
    assert manifest.commit == COMMIT
    assert hub.asked == []


def test_half_of_the_hubs_cache_names_what_lacks(offline: Downloader, hub: Hub, wanted) -> None:
    fill_hub_cache({SMALL: wanted[SMALL]})
    assert BIG in failure(offline).message
    assert hub.asked == []


def test_damage_in_the_hubs_cache_is_found_offline(offline: Downloader, wanted) -> None:
    blobs = fill_hub_cache(wanted)
    (blobs / sha256(wanted[BIG])).write_bytes(bytes(len(wanted[BIG])))
    error = failure(offline)
    assert BIG in error.message and "sha256" in error.message
    (blobs / sha256(wanted[BIG])).write_bytes(wanted[BIG])
    offline()
    offline.check_complete(wanted)


def test_with_a_network_the_hubs_cache_is_linked_not_fetched(download: Downloader, hub: Hub, wanted) -> None:
    blobs = fill_hub_cache({BIG: wanted[BIG]})
    download()
    download.check_complete(wanted)
    assert [asked.path for asked in hub.asked if asked.server == "cdn"] == []
    assert (download.folder.path / BIG).samefile(blobs / sha256(wanted[BIG]))


def test_a_pickle_in_the_hubs_cache_is_converted_and_stays(download: Downloader, hub: Hub) -> None:
    data = pickled({"weight": torch.ones(2)})
    hub.repositories[REPOSITORY] = {"model.bin": data}
    download.catalog = tiny_catalog("model.bin")
    blobs = fill_hub_cache({"model.bin": data})
    download()
    assert load_file(download.folder.path / "model.safetensors")["weight"].tolist() == [1, 1]
    assert (blobs / sha256(data)).read_bytes() == data
    assert [asked.server for asked in hub.asked] == ["hub"]


def test_damage_in_the_hubs_cache_is_fetched_instead(download: Downloader, hub: Hub, wanted) -> None:
    blobs = fill_hub_cache({BIG: wanted[BIG]})
    damaged = bytes(len(wanted[BIG]))
    (blobs / sha256(wanted[BIG])).write_bytes(damaged)
    download()
    download.check_complete(wanted)
    assert (blobs / sha256(wanted[BIG])).read_bytes() == damaged, "that cache is not ours to change"
    assert any("damaged" in warning for warning in download.warnings)


def test_another_revision_in_the_hubs_cache_is_not_used(download: Downloader, hub: Hub, wanted) -> None:
    fill_hub_cache({BIG: b"older"}, commit="a" * 40)
    download()
    download.check_complete(wanted)
