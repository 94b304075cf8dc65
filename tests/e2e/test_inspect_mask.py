"""``pigeon inspect-mask`` from files to files on random weights: the masks of ``generate``, exactly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pigeon_cli.cli.main import app
from pigeon_cli.pipeline.mask import MASK_KINDS
from pigeon_cli.report.json_report import MASKS_SCHEMA_NAME, read_schema
from pigeon_cli.weights.store import ModelFolder
from tests.e2e.conftest import picture
from tests.tiny_model import STYLE_TOKENS

Run = Callable[..., Result]
MASK_FIELDS = ("kept", "dropped", "scores", "codes", "patches")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: ModelFolder) -> Run:
    """Runs any command of ``pigeon`` on the tiny model in the test's folder."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, *arguments: str | Path) -> Result:
        words = [command, *map(os.fspath, arguments), "--device", "cpu", "--model", os.fspath(tiny.path)]
        return CliRunner().invoke(app, words)

    return run


def read(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def inspect(run: Run, *arguments: str | Path) -> dict[str, Any]:
    document = read(run("inspect-mask", *arguments, "--force", "--json"))
    jsonschema.validate(document, read_schema(MASKS_SCHEMA_NAME))
    return document


def masks_of(document: dict[str, Any], role: str) -> list[dict[str, Any]]:
    """Masks of ``inspect-mask`` in the form in which ``generate`` tells them."""
    return [{name: image[name] for name in MASK_FIELDS} for image in document["images"] if image["role"] == role]


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("wanted", ["reference", "prompt"])
def test_the_masks_are_those_of_generate(run: Run, liked: Path, wish: Path, kind: str, wanted: str) -> None:
    wishes: tuple[str | Path, ...] = ("--ref", wish)
    if wanted == "prompt":
        wishes = ("--prompt", "happy cat", "--temperature", "1.5", "--top-k", "40", "--max-tokens", "30")
    asked = ("--history", liked, *wishes, "--mask", kind, "--ref-mask", "0.3", "--history-mask", "0.4", "--seed", "5")
    shown, made = inspect(run, *asked), read(run("generate", *asked, "-n", "1", "--json"))
    assert masks_of(shown, "history") == made["history_tokens"]
    assert len(made["candidates"]) == 3
    for candidate in made["candidates"]:
        assert masks_of(shown, "reference") == [candidate["reference_tokens"]]
    assert {name: made["settings"][name] for name in shown["settings"]} == shown["settings"]
    assert (shown["model"], shown["device"]) == (made["model"], made["device"])
    dropped = sum(len(image["dropped"]) for image in shown["images"])
    assert (dropped == 0) == (kind == "off")
    assert all(len(image["scores"]) == (0 if kind == "off" else image["tokens"]) for image in shown["images"])


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_every_candidate_of_auto_can_be_looked_at(run: Run, liked: Path, wish: Path, kind: str) -> None:
    asked = ("--history", liked, "--ref", wish, "--mask", kind)
    candidates = read(run("generate", *asked, "-n", "1", "--json"))["candidates"]
    for place in (0, 5, 10):
        (shown,) = masks_of(inspect(run, *asked, "--ref-mask", str(place / 10)), "reference")
        told = candidates[place]["reference_tokens"]
        # The scores of a random mask are told as distances from the smallest kept one at the first dial position.
        compared = MASK_FIELDS if kind != "random" else ("kept", "dropped", "codes", "patches")
        assert {name: shown[name] for name in compared} == {name: told[name] for name in compared}


def test_the_dial_and_the_seed_decide(run: Run, liked: Path, wish: Path) -> None:
    asked = ("--history", liked, "--ref", wish)
    tokens = inspect(run, *asked)["images"][-1]["tokens"]
    for dial, kept in (("0", tokens), ("0.5", tokens // 2), ("1", 1)):
        assert len(inspect(run, *asked, "--ref-mask", dial)["images"][-1]["kept"]) == kept
    first, second = (inspect(run, *asked, "--mask", "random", "--seed", seed) for seed in ("1", "2"))
    assert masks_of(first, "history") != masks_of(second, "history")


def test_every_image_gets_an_overlay_and_its_numbers_hold_together(
    run: Run, liked: Path, wish: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (1, 1), "red").save(liked / "6.png")
    picture(7).resize((600, 200)).save(liked / "7.png")
    result = run("inspect-mask", "--history", liked, "--ref", wish, "--out", "out")
    assert result.exit_code == 0, result.output
    names = [*(f"history-{place:02d}-{place + 2}.png" for place in range(1, 6)), "reference-fox.png", "masks.png"]
    assert result.stdout.split() == [f"out/{name}" for name in names]
    document = json.loads((tmp_path / "out" / "masks.json").read_text())
    jsonschema.validate(document, read_schema(MASKS_SCHEMA_NAME))
    assert [image["overlay"] for image in document["images"]] == names[:-1] and document["sheet"] == "masks.png"
    for image in document["images"]:
        assert sorted([*image["kept"], *image["dropped"]]) == list(range(image["tokens"]))
        assert len(image["codes"]) == len(image["patches"]) == image["tokens"]
        style, patches = image["patches"][:STYLE_TOKENS], image["patches"][STYLE_TOKENS:]
        assert style == [-1] * STYLE_TOKENS
        assert patches == sorted(set(patches)) and min(patches) >= 0 and max(patches) < document["grid"] ** 2
        with Image.open(tmp_path / "out" / image["overlay"]) as overlay:
            assert overlay.mode == "RGB" and min(overlay.size) >= 256
    with Image.open(tmp_path / "out" / names[4]) as wide:
        assert wide.size == (768, 256)
    assert document["images"][-1]["sha256"] == document["reference"]["sha256"]
    assert [image["status"] for image in document["history"]] == ["beyond-history-size"] * 2 + ["used"] * 5


def test_the_same_call_gives_the_same_bytes(run: Run, liked: Path, wish: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        run("inspect-mask", "--history", liked, "--ref", wish, "--out", out, "--mask", "random")
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} for out in "ab")
    assert first == second and len(first) == 8


def test_a_reference_of_words_fills_the_grid_row_by_row(run: Run, liked: Path) -> None:
    document = inspect(run, "--history", liked, "--prompt", "happy cat")
    assert (document["prompt"], document["reference"]) == ("happy cat", None)
    imagined = document["images"][-1]
    patches = [*[-1] * STYLE_TOKENS, *range(imagined["tokens"] - STYLE_TOKENS)]
    assert (imagined["name"], imagined["sha256"], imagined["patches"]) == (None, None, patches)
    assert imagined["tokens"] > STYLE_TOKENS and Path("pigeon-masks/reference-happy-cat.png").is_file()


def test_too_long_a_history_names_the_limit(run: Run, liked: Path, wish: Path) -> None:
    picture(50).save(liked / "6.png")
    result = run("inspect-mask", "--history", liked, "--ref", wish, "--history-size", "6")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "reads 5 history images" in result.stderr and not Path("pigeon-masks").exists()
