"""JSON text, output files, cleaned text and sheets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from pigeon_cli.core.errors import OutputError
from pigeon_cli.core.records import DeviceRecord, HistoryImage, ModelRecord, RunReport
from pigeon_cli.report.files import image_names, prepare, prompt_stem, reference_stem, write_all
from pigeon_cli.report.json_report import report_bytes, tidy
from pigeon_cli.report.sheet import LINE, MARGIN, make_sheet
from pigeon_cli.report.terminal import clean


def report(path: str) -> RunReport:
    settings = {"guidance": 0.1 + 0.2, "list": [1, 2], "text": "[\n1]"}
    return RunReport(ModelRecord("mini"), DeviceRecord("cpu"), settings, (HistoryImage(Path(path)),), None, "狐", ())


def test_report_text_is_json_on_short_lines_and_repeats() -> None:
    text = report_bytes(report("a.png"))
    assert text == report_bytes(report("a.png")) and text.endswith(b"}\n")
    read = json.loads(text)
    assert read["settings"] == {"guidance": 0.3, "list": [1, 2], "text": "[\n1]"}
    assert b'"list": [1, 2]' in text and "狐".encode() in text
    assert next(iter(read.items())) == ("version", 1)


def test_report_keeps_undecodable_names() -> None:
    name = os.fsdecode(b"caf\xe9\n\x1b.png")
    assert json.loads(report_bytes(report(name)))["history"][0]["path"] == name


def test_tidy_has_no_nan() -> None:
    assert tidy({"a": [float("nan"), float("-inf"), 1 / 3, True, 7]}) == {"a": [None, None, 0.3333333, True, 7]}


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("[/x] [red] 🦊 👩‍🚀 ü", "[/x] [red] 🦊 👩‍🚀 ü"),
        ("gnp.\u202egpj", "gnp.\\u202egpj"),
        ("\udce9\x9b", "\\udce9\\x9b"),
    ],
)
def test_clean(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned
    assert clean(raw).isprintable() or "\u200d" in raw


def test_stems_and_names() -> None:
    assert image_names("a b", 2) == ["a b-01.png", "a b-02.png"]
    assert prompt_stem("Ein Fuchs, läuft/../ weg!") == "ein-fuchs-läuft-weg"
    assert prompt_stem("!?") == "pigeon"
    assert reference_stem(Path("x/..png")) == "pigeon"
    long = reference_stem(Path("狐" * 80 + ".png"))
    assert long == "狐" * 40


def test_prepare_leaves_no_trace(tmp_path: Path) -> None:
    prepare(tmp_path / "a" / "b", ["x.png"], force=False)
    assert os.listdir(tmp_path) == []


def test_prepare_refuses_links_folders_and_inputs(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to("nowhere")
    with pytest.raises(OutputError, match="exists already"):
        prepare(tmp_path, ["x.png"], force=False)
    (tmp_path / "y.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        prepare(tmp_path, ["y.png"], force=True)
    (tmp_path / "mine").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="is an input"):
        prepare(tmp_path / "mine", ["z.png"], force=True, inputs=[tmp_path / "z.png"])


def test_write_all_replaces_and_keeps_order(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"old")
    assert write_all(tmp_path, [("b", b"1"), ("a", b"2")]) == [tmp_path / "b", tmp_path / "a"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"2", "b": b"1"}


def test_sheet_places_images_and_captions() -> None:
    red, blue = Image.new("RGB", (10, 10), "red"), Image.new("RGBA", (20, 10), (0, 0, 255, 255))
    sheet = make_sheet([[red, blue], [None, red]], ["history", "a very long header"], ["one", "two"], cell=32)
    assert sheet.size == (MARGIN + 2 * (32 + MARGIN), MARGIN + LINE + 2 * (32 + MARGIN + LINE))
    top = MARGIN + LINE
    assert sheet.getpixel((MARGIN + 16, top + 16)) == (255, 0, 0)
    second = MARGIN + 32 + MARGIN
    assert sheet.getpixel((second + 16, top + 16)) == (0, 0, 255)
    assert sheet.getpixel((second + 16, top + 2)) == (255, 255, 255)
    assert min(sheet.crop((MARGIN, top + 33, sheet.width, top + 33 + LINE)).convert("L").tobytes()) < 128


def test_sheet_refuses_what_does_not_match() -> None:
    with pytest.raises(ValueError, match="caption"):
        make_sheet([[Image.new("RGB", (1, 1))]], captions=["a", "b"])
