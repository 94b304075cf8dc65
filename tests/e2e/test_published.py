"""``pigeon generate`` on a folder in the published layout: the real command, small random weights, parts by a plan."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pigeon_cli.cli.main import app
from pigeon_cli.report.json_report import MASKS_SCHEMA_NAME, read_schema
from tests.published_model import TITLES, write_clip, write_published

Pigeon = Callable[..., Result]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.fixture
def pigeon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Path) -> Pigeon:
    """Runs ``pigeon generate`` on the published model, with a download cache that is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIGEON_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str | Path) -> Result:
        words = ["generate", "--device", "cpu", "--steps", "2", *map(os.fspath, arguments)]
        return CliRunner().invoke(app, words if "--model" in words else [*words, "--model", os.fspath(published)])

    return run


@pytest.fixture
def request_words(liked: Path, wish: Path) -> tuple[str | Path, ...]:
    return ("--history", liked, "--ref", wish, "-n", "1", "--ref-mask", "0.5")


def report_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(report, read_schema())
    return report


def codes(report: dict[str, Any]) -> list[list[int]]:
    return [candidate["codes"] for candidate in report["candidates"]]


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_a_sticker(pigeon: Pigeon, liked: Path, wish: Path, tmp_path: Path) -> None:
    report = report_of(pigeon("--history", liked, "--ref", wish, "-n", "2", "--json", "--emotion", "joy"))
    assert size_of(tmp_path / "pigeon-out" / "fox-01.png") == (64, 64)
    assert len(report["candidates"]) == 11
    assert report["settings"]["mask"] == "similarity"
    assert report["device"]["dtype"] == "bfloat16"
    dropped = sum(len(mask["dropped"]) for mask in report["history_tokens"])
    assert dropped > 0
    best = next(candidate for candidate in report["candidates"] if candidate["rank"] == 1)
    assert best["score"] is None and best["reason"].endswith("by prescore")
    assert set(best["prescore_parts"]) == {"history", "reference", "words"}
    (warning,) = report["warnings"]
    assert "pigeon download clip-vit-h-14" in warning
    files = {file["name"]: file for file in report["model"]["weights"]}
    assert files["highres_pixel_decoding/unet/config.json"]["known_from"] == "reading"
    ran = [step["name"] for step in report["plan"]["steps"] if step["kind"] == "run"]
    assert ran == ["read the images", "mask", "slots", "imagine", "prescore", "draw"]


def test_emotion_title_and_scenario_change_the_prompt(pigeon: Pigeon, request_words: tuple[str | Path, ...]) -> None:
    def drawn(*more: str) -> dict[str, Any]:
        return report_of(pigeon(*request_words, "--json", "--force", *more))

    plain = drawn()
    assert codes(drawn()) == codes(plain)
    assert codes(drawn("--emotion", "joy")) != codes(plain)
    assert codes(drawn("--scenario", "poster")) != codes(plain)
    told = drawn("--title", "Heat")
    assert codes(told) == codes(plain)
    assert "the model sticker does not use --title: its prompt has no place for it" in told["warnings"]


def test_a_poster_has_titles_and_stands_upright(
    pigeon: Pigeon, liked: Path, wish: Path, published: Path, tmp_path: Path
) -> None:
    poster = tmp_path / "poster"
    shutil.copytree(published, poster / "lavit", copy_function=os.link)
    shutil.move(poster / "lavit" / "alignment", poster / "pigeon-poster")
    for path, title in zip(sorted(liked.iterdir()), TITLES, strict=True):
        path.rename(path.with_name(f"{title} (1999).png"))
    (liked / "Heat (1999).txt").write_text("Heat, the film (1995)\n")
    arguments = ("--model", poster / "lavit", "--history", liked, "--ref", wish, "--ref-mask", "0.5", "-n", "1")
    report = report_of(pigeon(*arguments, "--json", "--title", "Alien (1979)"))
    width, height = size_of(tmp_path / "pigeon-out" / "fox-01.png")
    assert (width, height) == (52, 76), "832 x 1216 at a sixteenth"
    titles = {image["title"] for image in report["history"]}
    assert titles == {"The Matrix", "Toy Story", "Heat, the film", "Casino", "Alien"}
    assert report["settings"]["title"] == "Alien"
    assert report["reference"]["words"] == "red fox"
    untitled = report_of(pigeon(*arguments, "--json", "--force"))
    assert untitled["settings"]["title"] == "fox"
    assert codes(untitled) != codes(report)


def test_words_come_from_the_file_s_name_where_nobody_gives_any(
    pigeon: Pigeon, request_words: tuple[str | Path, ...], wish: Path
) -> None:
    wish.with_suffix(".txt").unlink()
    named = report_of(pigeon(*request_words, "--json"))["reference"]
    assert (named["words"], named["words_from"]) == ("fox", "file name")


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (("--size", "128"), (128, 128)),
        (("--aspect", "16:9"), (84, 48)),
        (("--aspect", "2:3", "--size", "152"), (104, 152)),
    ],
)
def test_sizes(
    pigeon: Pigeon, request_words: tuple[str | Path, ...], tmp_path: Path, options: tuple[str, ...], size: object
) -> None:
    assert pigeon(*request_words, *options).exit_code == 0
    assert size_of(tmp_path / "pigeon-out" / "fox-01.png") == size


def test_a_plan_is_printed_and_nothing_is_done(
    pigeon: Pigeon, request_words: tuple[str | Path, ...], tmp_path: Path
) -> None:
    result = pigeon(*request_words, "--plan")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0][0] == "step" and lines[-1][0] == "peak"
    assert ["load", "language"] in [line[:2] for line in lines]
    plan = json.loads(pigeon(*request_words, "--plan", "--json").stdout)
    assert plan["precision"] == "bfloat16"
    assert max(step["peak"] for step in plan["steps"]) == plan["peak"] <= plan["budget"]
    assert not (tmp_path / "pigeon-out").exists()


def test_a_budget_decides_what_stays(pigeon: Pigeon, request_words: tuple[str | Path, ...]) -> None:
    refused = pigeon(*request_words, "--max-memory", "1MB")
    assert (refused.exit_code, refused.stdout) == (4, "")
    found = re.search(r"use --max-memory (\d+)B or more", refused.stderr)
    assert found
    # What the process holds besides grows a little from call to call.
    least = int(found[1]) + 20_000_000
    roomy = report_of(pigeon(*request_words, "--json"))
    tight = report_of(pigeon(*request_words, "--json", "--force", "--max-memory", f"{least}B"))
    assert tight["plan"]["budget"] == least
    assert codes(tight) == codes(roomy)
    assert roomy["plan"]["precision"] == "bfloat16"


def test_words_alone(pigeon: Pigeon, liked: Path, tmp_path: Path) -> None:
    report = report_of(pigeon("--history", liked, "--prompt", "red fox", "-n", "1", "--json"))
    ran = [step["name"] for step in report["plan"]["steps"] if step["kind"] == "run"]
    assert ran[:2] == ["read the images", "imagine a reference"]
    imagined = {tuple(candidate["reference_tokens"]["codes"]) for candidate in report["candidates"]}
    assert len(imagined) == 1 and 4 <= len(imagined.pop()) <= 12
    loads = [step["name"] for step in report["plan"]["steps"] if step["kind"] == "load"]
    assert loads.count("language") == 1, "the base model and the aligned one are the same weights"


@pytest.mark.parametrize(("options", "dtype"), [(("--quantize", "int8"), "int8"), (("--dtype", "float32"), "float32")])
def test_precisions(
    pigeon: Pigeon, request_words: tuple[str | Path, ...], options: tuple[str, ...], dtype: str
) -> None:
    report = report_of(pigeon(*request_words, "--json", *options))
    assert report["device"]["dtype"] == report["plan"]["precision"] == dtype
    again = report_of(pigeon(*request_words, "--json", "--force", *options))
    assert codes(again) == codes(report)


def test_nf4_is_for_cuda(pigeon: Pigeon, request_words: tuple[str | Path, ...]) -> None:
    result = pigeon(*request_words, "--quantize", "nf4")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nf4 runs on CUDA only" in result.stderr


def test_clip_in_the_cache_ranks_what_is_drawn(pigeon: Pigeon, liked: Path, wish: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "cache" / "clip-vit-h-14")
    report = report_of(pigeon("--history", liked, "--ref", wish, "--ref-mask", "0.5", "-n", "1", "--json"))
    assert report["warnings"] == []
    drawn = [candidate for candidate in report["candidates"] if candidate["score"] is not None]
    assert len(drawn) > 1, "spare images are drawn where something looks at them"
    for candidate in drawn:
        parts = candidate["score_parts"]
        assert candidate["score"] == pytest.approx(0.5 * parts["words"] + 0.5 * parts["history"], abs=1e-5)
    best = max(drawn, key=lambda candidate: candidate["score"])
    assert best["rank"] == 1 and "by score" in best["reason"]
    hashes = {file["name"]: file["known_from"] for file in report["model"]["weights"]}
    assert hashes["clip-vit-h-14/model.safetensors"] == "download"
    wish.with_suffix(".txt").unlink()
    named = report_of(pigeon("--history", liked, "--prompt", "fox", "-n", "1", "--json", "--force"))
    assert named["prompt"] == "fox"
    options = ("--scenario", "poster", "--ref-mask", "0.5", "-n", "1", "--json", "--force")
    poster = report_of(pigeon("--history", liked, "--ref", wish, *options))
    ranked = [candidate for candidate in poster["candidates"] if candidate["score"] is not None]
    assert ranked and all(candidate["score_parts"]["words"] is not None for candidate in ranked), "by the title"


def test_a_combination_that_is_not_downloaded_says_what_to_type(
    pigeon: Pigeon, request_words: tuple[str | Path, ...]
) -> None:
    result = pigeon(*request_words, "--model", "sticker")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "lavit-7b-v2 is not in the cache" in result.stderr
    assert "pigeon download sticker" in result.stderr


def test_a_size_that_cannot_be_drawn(pigeon: Pigeon, request_words: tuple[str | Path, ...]) -> None:
    result = pigeon(*request_words, "--size", "100")
    assert result.exit_code == 2 and "try --size 96" in result.stderr
    mini = pigeon(*request_words, "--model", "mini", "--size", "256")
    assert mini.exit_code == 2 and "128 x 128 pixels only" in mini.stderr


def test_the_mask_can_be_inspected(pigeon: Pigeon, liked: Path, wish: Path, published: Path, tmp_path: Path) -> None:
    drawn = report_of(pigeon("--history", liked, "--ref", wish, "-n", "1", "--ref-mask", "0.5", "--json"))
    words = ("inspect-mask", "--model", published, "--device", "cpu", "--history", liked, "--ref", wish, "--json")
    result = CliRunner().invoke(app, list(map(os.fspath, words)))
    assert result.exit_code == 0, result.output
    masks = json.loads(result.stdout)
    jsonschema.validate(masks, read_schema(MASKS_SCHEMA_NAME))
    assert masks["settings"]["mask"] == "similarity"
    kept = [image["kept"] for image in masks["images"]]
    assert kept[:-1] == [mask["kept"] for mask in drawn["history_tokens"]]
    assert kept[-1] == drawn["candidates"][0]["reference_tokens"]["kept"]
