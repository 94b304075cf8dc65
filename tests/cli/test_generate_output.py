"""stdout is data, stderr is talk; names, replacing, the report and the marks in the images."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

from pigeon_cli.report.json_report import read_schema

from .conftest import ODD_NAMES, picture


def test_paths_on_stdout_progress_on_stderr(pigeon, pipeline, liked: Path, wish: Path) -> None:
    result = pigeon("generate", "--history", liked, "--ref", wish, "--out", "out", "-n", "2")
    assert result.exit_code == 0
    assert result.stdout == "out/red fox-01.png\nout/red fox-02.png\n"
    assert result.stderr == "encode (6)\ndraw (2)\n"
    assert sorted(os.listdir("out")) == ["red fox-01.png", "red fox-02.png", "report.json"]


def test_quiet_hides_progress_and_keeps_warnings(pigeon, pipeline, liked: Path, wish: Path) -> None:
    (liked / "99.png").write_bytes(b"")
    pipeline.warnings = ("the word 'fox' is unknown",)
    result = pigeon("generate", "--history", liked, "--ref", wish, "--quiet")
    assert result.stderr.splitlines() == [
        f"warning: left out of the history: {liked}/99.png (the file is empty)",
        "warning: the word 'fox' is unknown",
    ]
    assert json.loads(Path("pigeon-out/report.json").read_text())["warnings"][1] == "the word 'fox' is unknown"


def test_json_is_exactly_the_report_and_valid(pigeon, pipeline, liked: Path, wish: Path) -> None:
    (liked / "0.png").write_bytes(b"broken")
    result = pigeon("generate", "--history", liked, "--ref", wish, "--json", "-n", "3", "--history-size", "9")
    written = Path("pigeon-out/report.json").read_bytes()
    assert result.stdout_bytes == written
    report = json.loads(written)
    jsonschema.validate(report, read_schema())
    assert [image["status"] for image in report["history"]] == ["skipped", *["used"] * 6]
    assert [entry["file"] for entry in report["outputs"]] == [f"red fox-0{rank}.png" for rank in (1, 2, 3)]
    assert [entry["candidate"] for entry in report["outputs"]] == [1, 2, 3]
    assert report["history_tokens"][0]["scores"] == [0.5, 0.1, None]
    assert [stage["name"] for stage in report["stages"]] == ["inputs", "imports"]


def test_schema_refuses_what_it_does_not_know() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"version": 1}, read_schema())


@pytest.mark.parametrize("taken", ["red fox-02.png", "report.json"])
def test_existing_output_stops_before_the_model(pigeon, pipeline, liked: Path, wish: Path, taken: str) -> None:
    Path("out").mkdir()
    Path("out", taken).write_text("mine")
    arguments = ("generate", "--history", liked, "--ref", wish, "--out", "out", "-n", "2")
    result = pigeon(*arguments)
    assert (result.exit_code, result.stdout, pipeline.requests) == (6, "", [])
    assert f"out/{taken} exists already" in result.stderr and "--force" in result.stderr
    assert os.listdir("out") == [taken]
    assert pigeon(*arguments, "--force").exit_code == 0
    assert Path("out", taken).read_bytes() != b"mine"


def test_force_never_replaces_an_input(pigeon, pipeline, liked: Path, wish: Path) -> None:
    mine = picture(liked / "red fox-01.png", 77)
    before = mine.read_bytes()
    result = pigeon("generate", "--history", liked, "--ref", wish, "--out", liked, "--force")
    assert result.exit_code == 6 and "is an input" in result.stderr
    assert mine.read_bytes() == before


def test_prompt_makes_the_name(pigeon, pipeline, liked: Path) -> None:
    result = pigeon("generate", "--history", liked, "--prompt", "  A red\nfox, läuft! ", "-n", "1")
    assert result.stdout == "pigeon-out/a-red-fox-läuft-01.png\n"
    assert pipeline.requests[0].prompt == "A red fox, läuft!"


@pytest.mark.parametrize(("name", "stem"), ODD_NAMES)
def test_names_from_any_reference(pigeon, pipeline, liked: Path, tmp_path: Path, name: str, stem: str) -> None:
    wish = picture(tmp_path / name, 99)
    result = pigeon("generate", "--history", liked, "--ref", wish, "-n", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [f"pigeon-out/{stem}-01.png"]
    report = json.loads(Path("pigeon-out/report.json").read_bytes())
    assert report["reference"]["path"] == os.fspath(wish)


def test_images_say_how_they_were_made_without_paths(pigeon, pipeline, liked: Path, wish: Path, tmp_path: Path) -> None:
    assert pigeon("generate", "--history", liked, "--ref", wish, "--caption", "a 狐", "-n", "1").exit_code == 0
    image = Image.open("pigeon-out/red fox-01.png")
    image.load()
    assert image.text["parameters"].startswith("a 狐\nSteps: 8, CFG scale: 3.0, Seed: 0, Size: 8x8, Model: mini")
    made = json.loads(image.text["pigeon"])
    assert made["settings"]["seed"] == 0 and made["rank"] == 1 and len(made["history"]) == 5
    assert "trainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]
    assert set(image.text) == {"parameters", "pigeon", "XML:com.adobe.xmp"}
    assert str(tmp_path) not in repr(image.text) and "red fox" not in repr(image.text)
    chunk = Path("pigeon-out/red fox-01.png").read_bytes()
    assert b"iTXtXML:com.adobe.xmp\0" in chunk


def test_a_model_folder_is_no_part_of_the_images(pigeon, pipeline, liked: Path, wish: Path) -> None:
    assert pigeon("generate", "--history", liked, "--ref", wish, "-n", "1", "--model", "my/secret").exit_code == 0
    assert json.loads(Path("pigeon-out/report.json").read_bytes())["settings"]["model"] == "my/secret"
    assert b"secret" not in Path("pigeon-out/red fox-01.png").read_bytes()


def test_images_without_metadata_still_say_that_a_model_made_them(pigeon, pipeline, liked: Path, wish: Path) -> None:
    arguments = ("generate", "--history", liked, "--ref", wish, "--caption", "a secret", "-n", "1", "--seed", "4711")
    assert pigeon(*arguments, "--no-metadata").exit_code == 0
    path = Path("pigeon-out/red fox-01.png")
    with Image.open(path) as image:
        image.load()
        assert list(image.text) == ["XML:com.adobe.xmp"]
        assert "trainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]
    assert not any(trace in path.read_bytes() for trace in (b"secret", b"4711", b"pigeon", b"mini"))
    report = json.loads(Path("pigeon-out/report.json").read_bytes())
    assert (report["reference"]["words"], report["settings"]["seed"]) == ("a secret", 4711)
    assert report["outputs"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_odd_names_everywhere(pigeon, pipeline, tmp_path: Path) -> None:
    names = ["a b.png", 'it\'s "1".png', "two\nlines.png", "🦊👩‍🚀.png", "-n.png"]
    for shade, name in enumerate(names):
        picture(tmp_path / "liked 'by'\n\"me\" 🦊" / name, shade)
    (tmp_path / "liked 'by'\n\"me\" 🦊" / "broken\n\x1b[31m.png").write_bytes(b"")
    wish = picture(tmp_path / "the [wish] 'of' $HOME\n🦊.png", 99)
    result = pigeon("generate", "--history", "liked 'by'\n\"me\" 🦊", "--ref", wish, "--out", "out 'of' 🦊", "-n", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "out 'of' 🦊/the [wish] 'of' $HOME_🦊-01.png\n"
    assert Path(result.stdout[:-1]).is_file()
    report = json.loads(Path("out 'of' 🦊/report.json").read_bytes())
    jsonschema.validate(report, read_schema())
    used = {Path(image["path"]).name for image in report["history"] if image["status"] == "used"}
    assert used == set(names)
    assert "broken\\n\\x1b[31m.png (the file is empty)" in result.stderr and "\x1b" not in result.stderr


def test_the_report_comes_last(pigeon, pipeline, liked: Path, wish: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, replace = [], os.replace

    def watched(source: Path, target: Path) -> None:
        seen.append((source.parent == target.parent, target.name, sorted(Path("out").glob("[!.]*"))))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    assert pigeon("generate", "--history", liked, "--ref", wish, "--out", "out", "-n", "2").exit_code == 0
    images = [Path("out/red fox-01.png"), Path("out/red fox-02.png")]
    assert seen == [(True, images[0].name, []), (True, images[1].name, images[:1]), (True, "report.json", images)]
