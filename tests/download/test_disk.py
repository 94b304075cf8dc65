"""Disks that are full or cannot be written: exit status 6, and nothing that came is lost."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pigeon_cli.core.errors import OutputError
from pigeon_cli.weights import plan as plan_module
from pigeon_cli.weights.checkpoint import save_part
from pigeon_cli.weights.convert import convert_pickle
from pigeon_cli.weights.disk import readable, remove_temporaries, unwritable
from pigeon_cli.weights.listener import Listener
from tests.download.conftest import Downloader
from tests.download.test_fetch import failure


def mounted(place: Path, *options: str) -> Iterator[Path]:
    """Mounts something at ``place`` for the time of a test; skips by name where that is not allowed."""
    place.mkdir(exist_ok=True)
    done = (
        subprocess.run(["mount", *options, str(place)], capture_output=True, check=False)
        if os.name == "posix"
        else None
    )
    if done is None or done.returncode:
        pytest.skip("needs the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """256 KiB: less than the big file."""
    yield from mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=256k", "tmpfs")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that refuses root, too."""
    yield from mounted(tmp_path / "fixed", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs")


def test_what_cannot_fit_is_refused_before_the_first_byte(download: Downloader, hub, small_disk: Path) -> None:
    download.root = small_disk
    error = failure(download, OutputError)
    assert "300 kB" in error.message and "PIGEON_CACHE" in error.hint
    assert [asked.server for asked in hub.asked] == ["hub"], "only the list was asked for"
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_keeps_what_came(
    download: Downloader, small_disk: Path, wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    download.root = small_disk
    monkeypatch.setattr(plan_module.Plan, "check_space", lambda plan: None)
    error = failure(download, OutputError)
    assert "No space left" in error.message and "model.safetensors" in error.message and "resumed" in error.hint
    assert download.folder.state == "incomplete"
    (part,) = (download.folder.path / "weights").glob("*.part")
    came = part.stat().st_size
    assert 0 < came < 300_000
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    assert came <= download.plan().parts[0].files[1].present
    download()
    download.check_complete(wanted)


def test_a_read_only_cache_says_so(download: Downloader, read_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download.root = read_only / "cache"
    monkeypatch.setattr(plan_module.Plan, "check_space", lambda plan: None)
    error = failure(download, OutputError)
    assert "Read-only file system" in error.message and str(read_only) in error.message
    assert "PIGEON_CACHE" in error.hint


def test_a_file_where_the_cache_should_be(download: Downloader) -> None:
    download.root.write_text("mine")
    error = failure(download, OutputError)
    assert str(download.root) in error.message
    assert download.root.read_text() == "mine"


def test_a_complete_cache_that_is_read_only_is_used(download: Downloader, wanted, tmp_path: Path) -> None:
    download()
    for place in mounted(download.root, "--bind", str(download.root)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        download()
        assert download.folder.verify(download.folder.manifest, Listener()) == {}
    download.check_complete(wanted)


def test_a_disk_that_fills_up_while_converting_leaves_no_half_file(small_disk: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(100_000)}, tmp_path / "model.bin")
    error = failure(lambda: convert_pickle(tmp_path / "model.bin", small_disk / "model.safetensors"), OutputError)
    assert "No space left" in error.message and "model.safetensors" in error.message
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_while_a_part_is_saved_leaves_no_half_file(small_disk: Path) -> None:
    error = failure(lambda: save_part(small_disk / "unet.safetensors", {"weight": torch.zeros(400_000)}), OutputError)
    assert "No space left" in error.message and "unet.safetensors" in error.message and "free space" in error.hint
    assert list(small_disk.iterdir()) == []


def test_what_killed_processes_were_making_goes_and_nothing_else(tmp_path: Path) -> None:
    names = ["model.safetensors", "model.safetensors.0123456789ab.part", "manifest.json.part", "x.tmp"]
    (tmp_path / "unet").mkdir()
    for name in [*names, ".model.safetensors.12.new", ".tmpl0p4XQ"]:
        (tmp_path / "unet" / name).touch()
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in (tmp_path / "unet").iterdir()) == sorted(names)


def test_the_two_hints_differ() -> None:
    full, refused = (unwritable(Path("x"), OSError(code, "no")) for code in (errno.ENOSPC, errno.EACCES))
    assert "free some space" in full.hint and "writable" in refused.hint


def test_sizes_are_told_in_three_digits() -> None:
    sizes = (999, 999_400, 999_600, 4_580_000_000)
    assert [readable(size) for size in sizes] == ["999 bytes", "999 kB", "1 MB", "4.58 GB"]
