"""Whatever an image file may be, through the whole command: the pixels that are meant, or a name and a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from tests.e2e.conftest import picture

Pigeon = Callable[..., Result]
ORIENTATION = 0x0112


def report_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def tokens(report: dict[str, Any]) -> dict[str, list[int]]:
    """Codes of every used history image by file name."""
    used = [Path(image["path"]).name for image in report["history"] if image["status"] == "used"]
    return {name: mask["codes"] for name, mask in zip(used, report["history_tokens"], strict=True)}


def write_one_picture_in_five_ways(folder: Path) -> None:
    """Grey blocks with a white corner: plain, rotated, of 16 bits and as a palette with a clear corner, and moving."""
    levels = np.random.default_rng(3).integers(0, 7, (5, 5)).repeat(8, 0).repeat(8, 1)
    levels[24:, :16] = 7
    greys = np.array([0, 30, 70, 110, 150, 190, 230, 255], dtype=np.uint8)
    plain = Image.fromarray(greys[levels])
    plain.save(folder / "plain.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    plain.transpose(Image.Transpose.ROTATE_90).save(folder / "rotated.png", exif=exif)
    wide = greys[levels].astype(np.uint16) * 257
    # Its key colour is one that shows nowhere else.
    Image.fromarray(np.where(levels == 7, 1000, wide).astype(np.uint16)).save(folder / "deep.png", transparency=1000)
    palette = Image.fromarray(levels.astype(np.uint8), mode="P")
    # The clear colour is red, which must not show.
    palette.putpalette([channel for grey in greys[:7] for channel in [int(grey)] * 3] + [255, 0, 0])
    palette.save(folder / "clear.png", transparency=7)
    others = [Image.fromarray(255 - greys[levels]), Image.new("L", plain.size)]
    plain.save(folder / "moving.gif", save_all=True, append_images=others, duration=40)


def test_one_picture_in_five_ways_is_read_the_same(pigeon: Pigeon, wish: Path, tmp_path: Path) -> None:
    (tmp_path / "ways").mkdir()
    write_one_picture_in_five_ways(tmp_path / "ways")
    with Image.open(tmp_path / "ways" / "deep.png") as deep, Image.open(tmp_path / "ways" / "moving.gif") as moving:
        assert (deep.mode, moving.n_frames) == ("I;16", 3)
    arguments = ("--history", "ways", "--ref", wish, "-n", "1", "--json", "--force")
    read = tokens(report_of(pigeon(*arguments)))
    assert set(read) == {"plain.png", "rotated.png", "deep.png", "clear.png", "moving.gif"}
    assert all(codes == read["plain.png"] for codes in read.values())
    on_black = tokens(report_of(pigeon(*arguments, "--alpha", "#000000")))
    assert on_black["clear.png"] == on_black["deep.png"] != on_black["plain.png"] == read["plain.png"]
    as_stored = tokens(report_of(pigeon(*arguments, "--alpha", "drop")))
    assert as_stored["rotated.png"] != read["plain.png"] != as_stored["clear.png"]


def write_zoo(folder: Path) -> None:
    """Five usable images of odd kinds, and five that cannot be used."""
    folder.mkdir()
    picture(1).convert("CMYK").save(folder / "print.jpg")
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    picture(2).resize((20_000, 2)).save(folder / "wide.png")
    picture(3).save(folder / "moving.webp", save_all=True, append_images=[picture(4)])
    # Its EXIF is damaged, which is no reason to leave it out.
    picture(5).convert("LA").save(folder / "grey.png", exif=b"Exif\0\0no header")
    picture(6).save(folder / "torn.png")
    (folder / "torn.png").write_bytes((folder / "torn.png").read_bytes()[:500])
    (folder / "empty.png").touch()
    (folder / "x.png").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "words.png").write_text("no image at all")


def test_a_folder_of_odd_and_broken_files(pigeon: Pigeon, wish: Path, tmp_path: Path) -> None:
    write_zoo(tmp_path / "zoo")
    result = pigeon("--history", "zoo", "--ref", wish, "-n", "1", "--json", "--quiet")
    report = report_of(result)
    status = {Path(image["path"]).name: image["status"] for image in report["history"]}
    broken = {"torn.png", "empty.png", "x.png", "loop.png", "words.png"}
    assert {name for name, became in status.items() if became == "skipped"} == broken
    assert set(tokens(report)) == {"print.jpg", "dot.png", "wide.png", "moving.webp", "grey.png"}
    sizes = {Path(image["path"]).name: (image["width"], image["height"]) for image in report["history"]}
    assert (sizes["dot.png"], sizes["wide.png"]) == ((1, 1), (20_000, 2))
    # Each is named with its reason, in the report and on stderr alike.
    assert result.stderr.splitlines() == [f"warning: {warning}" for warning in report["warnings"]]
    for name, reason in (
        ("torn.png", "it is damaged (image file is truncated"),
        ("empty.png", "the file is empty"),
        ("x.png", "it is a folder"),
        ("loop.png", "Too many levels of symbolic links"),
        ("words.png", "it is not an image of a known format"),
    ):
        assert sum(f"left out of the history: zoo/{name} ({reason}" in warning for warning in report["warnings"]) == 1


@pytest.mark.parametrize("name", ["print.jpg", "dot.png", "wide.png", "moving.webp", "grey.png"])
def test_odd_references(pigeon: Pigeon, liked: Path, tmp_path: Path, name: str) -> None:
    write_zoo(tmp_path / "zoo")
    result = pigeon("--history", liked, "--ref", tmp_path / "zoo" / name, "-n", "1", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"pigeon-out/{Path(name).stem}-01.png\n"
