"""``pigeon generate`` from files to files, on random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image
from typer.testing import Result

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.report.json_report import read_schema
from pigeon_cli.weights.store import ModelFolder, find_model
from tests.tiny_model import STYLE_TOKENS

Pigeon = Callable[..., Result]


def report_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(report, read_schema())
    return report


def test_a_reference_becomes_images_and_a_report(pigeon: Pigeon, liked: Path, wish: Path, tmp_path: Path) -> None:
    result = pigeon("--history", liked, "--ref", wish, "--out", "out", "-n", "3")
    assert result.exit_code == 0, result.output
    names = [f"fox-{rank:02d}.png" for rank in (1, 2, 3)]
    assert result.stdout.split() == [f"out/{name}" for name in names]
    for name in names:
        with Image.open(tmp_path / "out" / name) as image:
            assert (image.mode, image.size) == ("RGB", (32, 32))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    jsonschema.validate(report, read_schema())
    assert report["reference"]["words"] == "red fox"
    assert [output["rank"] for output in report["outputs"]] == [1, 2, 3]


def test_auto_tries_eleven_dials_and_tells_why_each_won_or_lost(pigeon: Pigeon, liked: Path, wish: Path) -> None:
    report = report_of(pigeon("--history", liked, "--ref", wish, "-n", "2", "--json"))
    candidates = report["candidates"]
    assert [candidate["dial"] for candidate in candidates] == [round(step / 10, 1) for step in range(11)]
    assert all(candidate["reason"] for candidate in candidates)
    drawn = [candidate for candidate in candidates if candidate["score"] is not None]
    left = [
        candidate for candidate in candidates if candidate["score"] is None and "same codes" not in candidate["reason"]
    ]
    assert len(drawn) == 4
    assert min(each["prescore"] for each in drawn) >= max(each["prescore"] for each in left)
    ranked = sorted((each for each in candidates if each["rank"]), key=lambda each: each["rank"])
    assert [each["rank"] for each in ranked] == [1, 2]
    assert ranked[0]["score"] >= ranked[1]["score"] >= max(each["score"] for each in drawn if not each["chosen"])
    parts = ranked[0]["score_parts"]
    # Random weights: means 0, deviations 1.
    assert ranked[0]["score"] == pytest.approx(
        0.5 * parts["history"] + 0.25 * (parts["reference"] + parts["words"]), abs=1e-5
    )


def test_masks_are_in_the_report(pigeon: Pigeon, liked: Path, wish: Path) -> None:
    report = report_of(pigeon("--history", liked, "--ref", wish, "-n", "1", "--json"))
    masks = report["history_tokens"]
    assert len(masks) == 5
    total = sum(len(mask["codes"]) for mask in masks)
    # max(1, floor(n (1 - 0.2))) kept, over all images together.
    assert sum(len(mask["kept"]) for mask in masks) == total * 4 // 5
    for mask in masks:
        assert sorted([*mask["kept"], *mask["dropped"]]) == list(range(len(mask["codes"])))
        assert len(mask["scores"]) == len(mask["patches"]) == len(mask["codes"])
    tokens = len(report["candidates"][0]["reference_tokens"]["codes"])
    for step, candidate in enumerate(report["candidates"]):
        kept = max(1, tokens * (10 - step) // 10)
        assert (candidate["kept"], candidate["dropped"]) == (kept, tokens - kept)
        assert len(candidate["reference_tokens"]["kept"]) == kept


@pytest.mark.parametrize("kind", ["learned", "similarity", "random", "off"])
def test_every_mask_kind_draws_and_is_named(pigeon: Pigeon, liked: Path, wish: Path, kind: str) -> None:
    report = report_of(pigeon("--history", liked, "--ref", wish, "-n", "1", "--mask", kind, "--json"))
    assert report["settings"]["mask"] == kind
    dropped = sum(len(mask["dropped"]) for mask in report["history_tokens"])
    assert (dropped == 0) == (kind == "off")


def test_a_fixed_dial_draws_from_several_streams(pigeon: Pigeon, liked: Path, wish: Path) -> None:
    report = report_of(pigeon("--history", liked, "--ref", wish, "-n", "3", "--ref-mask", "0.3", "--json"))
    assert [candidate["dial"] for candidate in report["candidates"]] == [0.3] * 5
    assert [candidate["sample"] for candidate in report["candidates"]] == list(range(5))
    assert report["settings"]["reference_mask"] == 0.3
    streams = [tuple(candidate["codes"]) for candidate in report["candidates"]]
    assert len(set(streams)) > 1
    fewer = report_of(pigeon("--history", liked, "--ref", wish, "-n", "1", "--ref-mask", "0.3", "--json", "--force"))
    assert [tuple(candidate["codes"]) for candidate in fewer["candidates"]] == streams[:3]


def test_more_than_eleven_come_from_further_streams(pigeon: Pigeon, liked: Path, wish: Path) -> None:
    few = report_of(pigeon("--history", liked, "--ref", wish, "-n", "1", "--json"))
    many = report_of(pigeon("--history", liked, "--ref", wish, "-n", "12", "--json", "--force"))
    assert [candidate["sample"] for candidate in many["candidates"]] == [0] * 11 + [1] * 11
    assert [c["codes"] for c in many["candidates"][:11]] == [c["codes"] for c in few["candidates"]]
    assert [c["codes"] for c in many["candidates"][11:]] != [c["codes"] for c in few["candidates"]]
    assert len(many["outputs"]) == 12
    written = [many["candidates"][output["candidate"]]["codes"] for output in many["outputs"]]
    assert len({tuple(codes) for codes in written}) == 12


def test_words_alone(pigeon: Pigeon, liked: Path) -> None:
    report = report_of(pigeon("--history", liked, "--prompt", "happy cat", "-n", "1", "--json"))
    assert (report["prompt"], report["reference"]) == ("happy cat", None)
    winner = next(candidate for candidate in report["candidates"] if candidate["rank"] == 1)
    assert winner["score_parts"]["reference"] is None
    assert winner["score_parts"]["words"] is not None
    patches = winner["reference_tokens"]["patches"]
    assert patches == [-1] * STYLE_TOKENS + list(range(len(patches) - STYLE_TOKENS))
    imagined = [candidate["reference_tokens"]["codes"] for candidate in report["candidates"]]
    assert imagined == [imagined[0]] * 11
    kept = [max(1, len(imagined[0]) * (10 - step) // 10) for step in range(11)]
    assert [candidate["kept"] for candidate in report["candidates"]] == kept
    assert report["warnings"] == []


def test_unknown_words_are_a_warning(pigeon: Pigeon, liked: Path, tiny: ModelFolder, tmp_path: Path) -> None:
    words = ("--prompt", "Happy cat, 狐 & 🦊", "-n", "1", "--json")
    result = pigeon("--history", liked, *words)
    (warning,) = report_of(result)["warnings"]
    # The tiny text model knows the letters of its few words and spells the rest in bytes.
    assert warning == "the model mini does not know these words: 狐, 🦊"
    assert f"warning: {warning}\n" in result.stderr
    shutil.copytree(tiny.path, tmp_path / "other")
    (tmp_path / "other" / "words.txt").write_text("cat\n狐\n", encoding="utf-8")
    (warning,) = report_of(pigeon("--history", liked, *words, "--force", "--model", "other"))["warnings"]
    assert warning == "the model mini does not know these words: happy, 🦊"


def test_an_emotion_that_the_wording_leaves_out_is_a_warning(pigeon: Pigeon, liked: Path, wish: Path) -> None:
    plain = report_of(pigeon("--history", liked, "--ref", wish, "-n", "1", "--json"))
    result = pigeon("--history", liked, "--ref", wish, "-n", "1", "--json", "--force", "--emotion", "joy")
    report = report_of(result)
    (warning,) = report["warnings"]
    assert warning == "the model mini does not use --emotion: its prompt has no place for it"
    assert f"warning: {warning}\n" in result.stderr
    assert (report["settings"]["emotion"], plain["settings"]["emotion"]) == ("joy", None)
    assert report["candidates"] == plain["candidates"]


def test_an_emotion_in_the_wording_reaches_the_model(
    pigeon: Pigeon, liked: Path, wish: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wording = "{#history}<img>{/history}{#emotion}{emotion} face {/emotion}{words}<emb><img>"
    for module in ("imagine", "words"):
        monkeypatch.setattr(f"pigeon_cli.pipeline.{module}.prompt_template", lambda name: wording)
    arguments = ("--history", liked, "--ref", wish, "-n", "1", "--json", "--force")
    reports = [report_of(pigeon(*arguments, *more)) for more in ((), ("--emotion", "happy"), ("--emotion", "birthday"))]
    assert all(report["warnings"] == [] for report in reports)
    assert len({json.dumps(report["candidates"]) for report in reports}) == 3


def test_the_report_names_the_weights_and_the_settings_that_were_used(
    pigeon: Pigeon, liked: Path, wish: Path, tiny: ModelFolder
) -> None:
    report = report_of(pigeon("--history", liked, "--ref", wish, "-n", "1", "--steps", "3", "--json"))
    names = {weight["name"] for weight in report["model"]["weights"]}
    assert {path.name for path in tiny.path.iterdir()} == names
    used = {name: report["settings"][name] for name in ("steps", "guidance", "temperature", "top_k", "max_tokens")}
    assert used == {"steps": 3, "guidance": 2.0, "temperature": 1.0, "top_k": 50, "max_tokens": 18 + STYLE_TOKENS}
    assert report["peak_memory_bytes"] > 2**20
    assert {"imagine", "prescore", "draw", "score"} <= {stage["name"] for stage in report["stages"]}


def test_the_same_seed_gives_the_same_bytes(pigeon: Pigeon, liked: Path, wish: Path, tmp_path: Path) -> None:
    for out, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        assert pigeon("--history", liked, "--ref", wish, "--out", out, "-n", "2", "--seed", seed).exit_code == 0
    first, second, other = (
        [Image.open(tmp_path / out / f"fox-{rank:02d}.png").tobytes() for rank in (1, 2)] for out in "abc"
    )
    assert first == second
    assert first != other
    for name in ("fox-01.png", "fox-02.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_too_long_a_history_names_the_limit(pigeon: Pigeon, liked: Path, wish: Path) -> None:
    result = pigeon("--history", liked, "--ref", wish, "--history-size", "6")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the model mini reads 5 history images, not 6" in result.stderr


def test_more_tokens_than_the_model_can_read(pigeon: Pigeon, liked: Path, wish: Path) -> None:
    result = pigeon("--history", liked, "--ref", wish, "--max-tokens", "5000")
    assert result.exit_code == 2
    assert "--max-tokens" in result.stderr
    result = pigeon("--history", liked, "--prompt", "red fox " * 500)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "give fewer words" in result.stderr and "imagine a reference" not in result.stderr


def test_fewer_tokens_than_the_minimum(pigeon: Pigeon, liked: Path, wish: Path) -> None:
    report = report_of(pigeon("--history", liked, "--ref", wish, "--max-tokens", "3", "-n", "1", "--json"))
    assert all(len(candidate["codes"]) <= 3 for candidate in report["candidates"])


def test_repeated_codes_are_drawn_once_and_said(pigeon: Pigeon, liked: Path, wish: Path) -> None:
    result = pigeon("--history", liked, "--ref", wish, "--ref-mask", "1", "--temperature", "0", "-n", "2", "--json")
    report = report_of(result)
    assert len(report["outputs"]) == 1
    assert sum("the same codes" in candidate["reason"] for candidate in report["candidates"]) == 3
    assert any("1 images instead of 2" in warning for warning in report["warnings"])


def test_sample_with_the_bundled_model(pigeon: Pigeon) -> None:
    try:
        find_model("mini")
    except WeightsError:
        pytest.skip("the weights of the bundled model are not in this checkout")
    report = report_of(pigeon("--sample", "--model", "mini", "--json"))
    assert len(report["outputs"]) == 4
    assert report["peak_memory_bytes"] < 1.5e9
