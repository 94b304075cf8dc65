"""``pigeon inspect-mask`` as a command: what reaches the pipeline, what is printed where, what is left behind."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jsonschema
import pytest
from PIL import Image

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.core.records import (
    DeviceRecord,
    GenerateRequest,
    InspectedImage,
    MaskReport,
    ModelRecord,
    TokenMask,
)
from pigeon_cli.report import files
from pigeon_cli.report.json_report import MASKS_SCHEMA_NAME, read_schema

from .conftest import ODD_NAMES, find_fake_model, picture

MASK = TokenMask((0, 2), (1,), (0.5, 0.1, 0.25), (7, 8, 9), (0, 1, 3))


@dataclass
class FakeMasks:
    """Remembers requests and decides the same mask for every image."""

    requests: list[GenerateRequest] = field(default_factory=list)
    fails_with: BaseException | None = None
    recalled: str | None = None
    warnings: tuple[str, ...] = ()

    def inspect_masks(self, request: GenerateRequest, progress: Callable[[str, int, int], None]) -> SimpleNamespace:
        self.requests.append(request)
        progress("mask", 0, 1)
        if self.fails_with is not None:
            raise self.fails_with
        wish = request.reference
        images = [InspectedImage("history", image.path.name, image.sha256, MASK) for image in request.used_history]
        named = (wish.path.name, wish.sha256) if wish and self.recalled is None else (None, None)
        report = MaskReport(
            model=ModelRecord(request.model),
            device=DeviceRecord("cpu"),
            settings={
                "seed": request.seed, "reference_mask": request.reference_mask,
                "history_mask": 0.2 if request.history_mask is None else request.history_mask,
                "mask": request.mask or "learned", "model": request.model, "device": request.device,
                "alpha": request.alpha, "temperature": 1.0, "top_k": 50, "max_tokens": 18,
            },
            history=request.history,
            reference=wish,
            prompt=request.prompt,
            grid=2,
            images=(*images, InspectedImage("reference", *named, MASK)),
            recalled=self.recalled,
            warnings=self.warnings,
        )  # fmt: skip
        pictures = [Image.new("RGB", (4, 4)) for _ in images]
        read = Image.new("RGB", (4, 4)) if wish or self.recalled else None
        return SimpleNamespace(images=[*pictures, read], report=report)


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> FakeMasks:
    fake = FakeMasks()
    module = ModuleType("pigeon_cli.pipeline.run")
    module.inspect_masks = fake.inspect_masks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("pigeon_cli.weights.store.find_model", find_fake_model)
    return fake


def test_defaults_reach_the_pipeline(pigeon, masks: FakeMasks, liked: Path, wish: Path) -> None:
    assert pigeon("inspect-mask", "--history", liked, "--ref", wish).exit_code == 0
    request = masks.requests[0]
    assert [image.path.name for image in request.used_history] == ["2.png", "3.png", "8.png", "9.png", "10.png"]
    assert (request.reference_mask, request.history_mask, request.mask, request.seed) == (0.5, None, None, 0)
    assert (request.model, request.device, request.alpha) == ("mini", "auto", "white")
    assert len(os.listdir("pigeon-masks")) == 8


def test_settings_reach_the_pipeline(pigeon, masks: FakeMasks, liked: Path, wish: Path) -> None:
    text = """
        --seed 7 --ref-mask 0 --history-mask 1 --mask random --device cpu --alpha #00ff7F --history-size 2
        --caption hen --model elsewhere
    """
    assert pigeon("inspect-mask", "--history", liked, "--ref", wish, *text.split()).exit_code == 0
    request = masks.requests[0]
    assert (request.seed, request.reference_mask, request.history_mask, request.mask) == (7, 0.0, 1.0, "random")
    assert (request.device, request.alpha, request.model) == ("cpu", "#00ff7F", "elsewhere")
    assert request.words == "hen" and len(request.used_history) == 2


def test_paths_on_stdout_and_a_table_on_stderr(pigeon, masks: FakeMasks, liked: Path, wish: Path) -> None:
    result = pigeon("inspect-mask", "--history", liked, "--ref", wish, "--out", "out", "--history-size", "2")
    assert result.stdout == "out/history-01-9.png\nout/history-02-10.png\nout/reference-red fox.png\nout/masks.png\n"
    progress, header, *rows = result.stderr.splitlines()
    assert progress == "mask (1)"
    assert header.split() == ["image", "patches", "merged", "kept", "dropped", "scores"]
    assert [row.split() for row in rows] == [
        ["history", "9.png", "4", "1", "2", "1", "0.1", "to", "0.5"],
        ["history", "10.png", "4", "1", "2", "1", "0.1", "to", "0.5"],
        ["reference", "red", "fox.png", "4", "1", "2", "1", "0.1", "to", "0.5"],
    ]


def test_json_is_exactly_the_document_and_quiet_is_quiet(pigeon, masks: FakeMasks, liked: Path, wish: Path) -> None:
    (liked / "99.png").write_bytes(b"broken")
    result = pigeon("inspect-mask", "--history", liked, "--ref", wish, "--json", "--quiet")
    assert result.stdout_bytes == Path("pigeon-masks/masks.json").read_bytes()
    document = json.loads(result.stdout)
    jsonschema.validate(document, read_schema(MASKS_SCHEMA_NAME))
    assert result.stderr.splitlines() == [f"warning: {document['warnings'][0]}"]
    assert document["history"][-1]["status"] == "skipped" and "99.png" in document["warnings"][0]
    image = document["images"][0]
    assert {name: image[name] for name in ("role", "name", "tokens", "kept", "dropped")} == {
        "role": "history", "name": "2.png", "tokens": 3, "kept": [0, 2], "dropped": [1],
    }  # fmt: skip


def test_schema_refuses_what_it_does_not_know(pigeon, masks: FakeMasks, liked: Path, wish: Path) -> None:
    document = json.loads(pigeon("inspect-mask", "--history", liked, "--ref", wish, "--json").stdout)
    schema = read_schema(MASKS_SCHEMA_NAME)
    del document["images"][0]["scores"]
    with pytest.raises(jsonschema.ValidationError, match="scores"):
        jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"version": 1}, schema)


def test_words_have_no_picture(pigeon, masks: FakeMasks, liked: Path) -> None:
    result = pigeon("inspect-mask", "--history", liked, "--prompt", "A red\nfox!", "--history-size", "1")
    assert result.stdout.splitlines()[1] == "pigeon-masks/reference-a-red-fox.png"
    assert result.stderr.splitlines()[-1].split() == [
        "reference", "A", "red", "fox!", "-", "-", "2", "1", "0.1", "to", "0.5",
    ]  # fmt: skip


@pytest.mark.parametrize("wanted", [("--prompt", "a fox"), ("--ref", "red fox.png")])
def test_what_was_recalled_has_its_own_name_and_numbers(
    pigeon, masks: FakeMasks, liked: Path, wish: Path, wanted: tuple[str, str]
) -> None:
    masks.recalled = "fox face"
    result = pigeon("inspect-mask", "--history", liked, *wanted, "--history-size", "1")
    assert result.stderr.splitlines()[-1].split() == [
        "reference", "fox", "face", "(recalled)", "4", "1", "2", "1", "0.1", "to", "0.5",
    ]  # fmt: skip


def test_warnings_of_the_pipeline_are_told(pigeon, masks: FakeMasks, liked: Path, wish: Path) -> None:
    masks.warnings = ("a thing like it stands in", "the model mini does not know these words: xyzzy")
    (liked / "99.png").write_bytes(b"broken")
    result = pigeon("inspect-mask", "--history", liked, "--ref", wish, "--json", "--quiet")
    told = json.loads(result.stdout)["warnings"]
    assert "99.png" in told[0] and tuple(told[1:]) == masks.warnings
    assert result.stderr.splitlines() == [f"warning: {each}" for each in told]


@pytest.mark.parametrize(("name", "stem"), ODD_NAMES)
def test_names_from_any_file(pigeon, masks: FakeMasks, liked: Path, wish: Path, name: str, stem: str) -> None:
    odd = picture(liked / name, 99)
    result = pigeon("inspect-mask", "--history", odd, "--ref", wish)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == f"pigeon-masks/history-01-{stem}.png"
    assert json.loads(Path("pigeon-masks/masks.json").read_bytes())["images"][0]["name"] == odd.name
    assert "\x1b" not in result.stderr


def test_files_of_one_name_in_two_folders(pigeon, masks: FakeMasks, liked: Path, wish: Path, tmp_path: Path) -> None:
    other = picture(tmp_path / "other" / "9.png", 120)
    result = pigeon("inspect-mask", "--history", liked / "9.png", "--history", other, "--ref", wish)
    assert result.stdout.splitlines()[:2] == ["pigeon-masks/history-01-9.png", "pigeon-masks/history-02-9.png"]


@pytest.mark.parametrize("taken", ["history-01-2.png", "masks.png", "masks.json"])
def test_existing_output_stops_before_the_model(pigeon, masks: FakeMasks, liked: Path, wish: Path, taken: str) -> None:
    Path("out").mkdir()
    Path("out", taken).write_text("mine")
    arguments = ("inspect-mask", "--history", liked, "--ref", wish, "--out", "out")
    result = pigeon(*arguments)
    assert (result.exit_code, result.stdout, masks.requests) == (6, "", [])
    assert f"out/{taken} exists already" in result.stderr and "--force" in result.stderr
    assert os.listdir("out") == [taken]
    assert pigeon(*arguments, "--force").exit_code == 0
    assert Path("out", taken).read_bytes() != b"mine"


@pytest.mark.parametrize("call", [1, 4, 8])
def test_nothing_is_left_when_it_is_interrupted(
    pigeon, masks: FakeMasks, liked: Path, wish: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    calls, write = 0, files._write

    def interrupted(path: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        write(path, data[:3])
        if calls == call:
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "_write", interrupted)
    result = pigeon("inspect-mask", "--history", liked, "--ref", wish, "--out", "out")
    assert (result.exit_code, result.stdout, os.listdir("out")) == (130, "", [])


def test_errors_of_the_pipeline_keep_their_status(pigeon, masks: FakeMasks, liked: Path, wish: Path) -> None:
    masks.fails_with = WeightsError("unet.safetensors is damaged", "install again")
    result = pigeon("inspect-mask", "--history", liked, "--ref", wish, "--quiet")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "error: unet.safetensors is damaged\nhint: install again\n"
    assert not Path("pigeon-masks").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no history"),
        (("--history", "liked"), "either a reference image or a prompt"),
        (("--history", "liked", "--prompt", "x", "--caption", "y"), "--caption"),
        (("--sample", "--history", "liked"), "--sample brings its own"),
        (("--history", "liked", "--ref", "red fox.png", "-0"), "-0 is about"),
        (("--sample", "--ref-mask", "auto"), "inspect-mask looks at one position"),
        (("--sample", "--ref-mask", "1.5"), "--ref-mask"),
        (("--sample", "--alpha", "blue"), "--alpha"),
        (("--sample", "--mask", "best"), "--mask"),
        (("--sample", "-n", "2"), "-n"),
    ],
)
def test_usage_errors(pigeon, masks: FakeMasks, liked: Path, wish: Path, arguments, says: str) -> None:
    result = pigeon("inspect-mask", *arguments)
    assert (result.exit_code, result.stdout, masks.requests) == (2, "", [])
    assert says in result.stderr
    assert not Path("pigeon-masks").exists()


def test_list_on_standard_input(pigeon, masks: FakeMasks, liked: Path, wish: Path) -> None:
    listed = b"\0".join(os.fsencode(liked / name) for name in ("3.png", "8.png")) + b"\0"
    result = pigeon("inspect-mask", "--history", "-", "-0", "--ref", wish, stdin=listed)
    assert result.exit_code == 0, result.stderr
    assert [image.path.name for image in masks.requests[0].used_history] == ["3.png", "8.png"]
