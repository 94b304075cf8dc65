"""The history's intake: order, size, what is skipped and why."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from PIL import Image

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.records import HistoryStatus
from pigeon_cli.history.intake import IntakeLimits, gather, load_image, open_image, parse_list
from pigeon_cli.history.words import SIDECAR_BYTES, read_reference, sidecar, title_of


def picture(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (shade, 10, 20)).save(path)
    return path


def names(images, status: HistoryStatus = HistoryStatus.USED) -> list[str]:
    return [image.path.name for image in images if image.status is status]


def test_natural_order_and_the_last_ones(tmp_path: Path) -> None:
    for number in ("1", "2", "10", "09", "a2", "A10", "1" + "0" * 100):
        picture(tmp_path / f"{number}.png", len(number))
    images = gather([tmp_path], size=3)
    assert [image.path.stem for image in images] == ["1", "2", "09", "10", "1" + "0" * 100, "a2", "A10"]
    assert names(images) == ["1" + "0" * 100 + ".png", "a2.png", "A10.png"]
    assert names(images, HistoryStatus.OLDER) == ["1.png", "2.png", "09.png", "10.png"]
    assert images[0].sha256 is None and "older" in images[0].reason


def test_records_hold_hash_and_size(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    (image,) = gather([path])
    assert (image.sha256, image.width, image.height) == (hashlib.sha256(path.read_bytes()).hexdigest(), 4, 3)


def test_broken_newest_ones_make_room_for_older(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / f"{number}.png", number)
    (tmp_path / "9.png").write_bytes(b"")
    assert names(gather([tmp_path], size=2)) == ["2.png", "3.png"]


def test_time_order(tmp_path: Path) -> None:
    for name, when in (("a", 30), ("b", 10), ("c", 20)):
        os.utime(picture(tmp_path / f"{name}.png", when), (when, when))
    assert names(gather([tmp_path], order="time")) == ["b.png", "c.png", "a.png"]


def test_hidden_and_other_files_are_passed_over_in_folders_only(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    hidden = picture(tmp_path / ".hidden.png", 1)
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    (tmp_path / "photo.heic").write_bytes(b"....ftypheic")
    images = gather([tmp_path])
    assert names(images) == ["a.png"] and names(images, HistoryStatus.SKIPPED) == ["photo.heic"]
    named = gather([hidden, text])
    assert names(named) == [".hidden.png"] and names(named, HistoryStatus.SKIPPED) == ["notes.txt"]


def test_recursion_is_asked_for_and_one_file_counts_once(tmp_path: Path) -> None:
    picture(tmp_path / "deep" / "er" / "b.png", 2)
    top = picture(tmp_path / "a.png", 1)
    (tmp_path / "deep" / "round").symlink_to(tmp_path)
    assert names(gather([tmp_path, top])) == ["a.png"]
    assert names(gather([tmp_path, top], recursive=True)) == ["a.png", "b.png"]


def test_limits_on_bytes_and_pixels(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    for limits, says in ((IntakeLimits(pixels=11), "megapixels"), (IntakeLimits(file_bytes=10), "larger than")):
        with pytest.raises(InputError, match=says) as caught:
            open_image(path, limits)
        assert caught.value.hint == "give a smaller one"
    assert open_image(path, IntakeLimits(file_bytes=path.stat().st_size, pixels=12)).size == (4, 3)


def test_lists() -> None:
    assert parse_list(b"a b.png\r\n\nc.png", False) == [Path("a b.png"), Path("c.png")]
    assert parse_list(b"a\nb.png\0c.png\0", True) == [Path("a\nb.png"), Path("c.png")]
    assert os.fsencode(parse_list(b"caf\xe9.png\n", False)[0]) == b"caf\xe9.png"
    with pytest.raises(InputError, match="NUL") as caught:
        parse_list(b"a.png\0b.png\0", False)
    assert caught.value.hint == "add -0"
    with pytest.raises(InputError, match="empty"):
        parse_list(b"\n", False)


def test_a_sidecar_file_holds_words_and_a_title(tmp_path: Path) -> None:
    image = picture(tmp_path / "6.png")
    (tmp_path / "6.txt").write_text("red fox\nTitle: The Fox (1999)\n")
    assert sidecar(image) == ("red fox", "The Fox (1999)")
    assert read_reference(image).words == "red fox" and title_of(image) == "The Fox"
    (tmp_path / "6.txt").write_text("red fox (1999)")
    assert title_of(image) == "red fox"
    (tmp_path / "6.txt").write_text("title: The Fox")
    assert read_reference(image).words_from == "none"


def test_sidecar_words_are_one_line_and_capped(tmp_path: Path) -> None:
    reference = picture(tmp_path / "fox.png")
    assert sidecar(reference) == ("", "")
    assert read_reference(reference).words_from == "none"
    (tmp_path / "fox.txt").write_text("a" * (2 * SIDECAR_BYTES))
    assert len(read_reference(reference).words) == SIDECAR_BYTES
    assert read_reference(reference, " my\n words ").words == "my words"
    assert read_reference(reference).sha256 == load_image(reference).sha256
