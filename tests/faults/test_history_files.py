"""Whatever lies in a history folder is used, or skipped and named; it never stops the rest."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import warnings
import zlib
from pathlib import Path

import pytest
from PIL import Image

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.records import HistoryImage, HistoryStatus
from pigeon_cli.history.intake import IntakeLimits, gather, open_image
from pigeon_cli.history.preprocess import to_rgb


def noisy(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    image = Image.effect_noise(size, 80)
    return image.convert(mode)


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def only(path: Path) -> HistoryImage:
    """The record of ``path`` gathered beside one good image."""
    good = save(path.parent / "good image.png", noisy())
    images = gather([path.parent])
    assert [image.path for image in images if image.path == good and image.status is HistoryStatus.USED]
    return next(image for image in images if image.path == path)


def test_truncated(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "webp", "gif", "bmp", "tiff"):
        path = save(tmp_path / f"cut.{suffix}", noisy())
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        record = only(path)
        assert record.status is HistoryStatus.SKIPPED, suffix
        assert record.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"<svg/>", "known format"),
        (b"PK\x03\x04" * 99, "known format"),
    ],
)
def test_not_an_image(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    record = only(path)
    assert record.status is HistoryStatus.SKIPPED and reason in record.reason


def test_formats_outside_the_list_are_refused_whatever_their_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    noisy().save(buffer, format="PPM")
    path = tmp_path / "x.png"
    path.write_bytes(buffer.getvalue())
    assert only(path).status is HistoryStatus.SKIPPED


def test_folder_link_loop_and_pipe(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "folder" in only(tmp_path / "x.png").reason
    assert "symbolic links" in only(tmp_path / "loop.png").reason
    assert "No such file" in only(tmp_path / "gone.png").reason
    assert "regular file" in only(tmp_path / "pipe.png").reason


def test_link_to_an_image_is_used(tmp_path: Path) -> None:
    target = save(tmp_path / "target.png", noisy())
    (tmp_path / "link.jpg").symlink_to(target)
    assert only(tmp_path / "link.jpg").status is HistoryStatus.USED


@pytest.mark.parametrize("name", ["a b.png", "🦊👩‍🚀.png", "two\nlines.png", "'\"`$x.png", "-n.png", "ESC\x1b[31m.png"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    assert only(save(tmp_path / name, noisy())).status is HistoryStatus.USED


def test_odd_pixels(tmp_path: Path) -> None:
    palette = noisy("P")
    frames = [noisy() for _ in range(3)]
    rotated = noisy()
    exif = rotated.getexif()
    exif[0x0112] = 6
    paths = [
        save(tmp_path / "cmyk.jpg", noisy("CMYK")),
        save(tmp_path / "16bit.png", noisy("I").convert("I;16")),
        save(tmp_path / "float.tiff", noisy("F")),
        save(tmp_path / "palette.png", palette, transparency=0),
        save(tmp_path / "bilevel.png", noisy("1")),
        save(tmp_path / "grey alpha.png", noisy("L").convert("LA")),
        save(tmp_path / "tiny.png", noisy(size=(1, 1))),
        save(tmp_path / "wide.png", noisy("L", (20_000, 4))),
        save(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:]),
        save(tmp_path / "moving.webp", frames[0], save_all=True, append_images=frames[1:]),
        save(tmp_path / "rotated.jpg", rotated, exif=exif),
    ]
    images = gather([tmp_path], size=len(paths))
    assert [(image.path.name, image.reason) for image in images if image.status is not HistoryStatus.USED] == []
    assert open_image(tmp_path / "rotated.jpg").getexif()[0x0112] == 6


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = orientation, "a program's name"
    return exif.tobytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    ("data", "size"),
    [
        (exif_of(6), (30, 40)),
        (b"Exif\0\0XX" + exif_of(6)[8:], (40, 30)),
        (exif_of(6)[:20], (40, 30)),
        (exif_of(6)[:12], (40, 30)),
        (exif_of(6)[:-8], (30, 40)),
    ],
    ids=["whole", "no header", "directory cut off", "header alone", "all but the orientation damaged"],
)
def test_damaged_exif_is_passed_over(tmp_path: Path, suffix: str, data: bytes, size: tuple[int, int]) -> None:
    path = save(tmp_path / f"x.{suffix}", noisy(), exif=data)
    assert only(path).status is HistoryStatus.USED
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_rgb(open_image(path)).size == size


def test_first_frame_only(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    assert open_image(path).convert("RGB").getpixel((4, 4)) == (255, 0, 0)


def test_decompression_bomb_is_named_not_drawn(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    header = bytearray(save(path, Image.new("1", (8, 8))).read_bytes())
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    path.write_bytes(header)
    record = only(path)
    assert record.status is HistoryStatus.SKIPPED and "megapixels" in record.reason


def test_nothing_usable_says_how_many_and_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image in the history"):
        gather([tmp_path])
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(b"x" * number)
    with pytest.raises(InputError) as caught:
        gather([tmp_path])
    message = caught.value.message
    assert str(tmp_path) in message and "5 skipped" in message
    assert "0.png: the file is empty" in message and "and 2 more" in message


def test_the_hint_is_about_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hint(path: Path) -> str:
        hints = []
        for use in (open_image, lambda path: gather([path])):
            with pytest.raises(InputError) as caught:
                use(path)
            hints.append(caught.value.hint)
        assert hints[0] == hints[1]
        return hints[0]

    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    assert "PNG, JPEG" in hint(tmp_path / "text.png")
    assert hint(tmp_path / "gone.png") == "check the path"
    with pytest.raises(InputError) as caught:
        gather([tmp_path])
    assert "PNG, JPEG" in caught.value.hint and "check the path" in caught.value.hint
    mine = save(tmp_path / "mine.png", noisy())
    with pytest.raises(InputError) as caught:
        gather([mine], limits=IntakeLimits(pixels=9))
    assert caught.value.hint == "give a smaller one"
    with pytest.raises(InputError) as caught:
        gather([mine], reference_sha=hashlib.sha256(mine.read_bytes()).hexdigest())
    assert caught.value.hint == "give liked images that differ from the reference"

    # Root may read anything, so the system's answer is planted.
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert hint(mine) == "check its permissions"


def test_a_folder_without_images_points_to_recursive_once(tmp_path: Path) -> None:
    for recursive in (False, True):
        with pytest.raises(InputError, match="no image in the history") as caught:
            gather([tmp_path], recursive=recursive)
        assert ("--recursive" in caught.value.hint) is not recursive


def test_missing_paths_stop(tmp_path: Path) -> None:
    good = save(tmp_path / "a.png", noisy())
    for missing in (tmp_path / "b.png", good / "under a file.png", Path("nul\0.png")):
        with pytest.raises(InputError, match="there is no file or folder"):
            gather([good, missing])
