"""Prompts and references that ask for what the model can draw by heart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner, Result

from pigeon_cli.cli.main import app
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.engine.residency import MEMORY, TOKENIZER, VAE
from pigeon_cli.models.colour_maps import Unchanged
from pigeon_cli.models.colour_transfer import ColourSpread, in_colours
from pigeon_cli.models.diffusion import decode_latents
from pigeon_cli.models.redrawing import PALETTE
from pigeon_cli.models.small_pictures import as_image
from pigeon_cli.models.worn_look import WornLook
from pigeon_cli.pipeline import recall
from pigeon_cli.pipeline.looks import pixels_of
from pigeon_cli.pipeline.recall import MEMORY_LIST, lines_of
from pigeon_cli.pipeline.session import Session
from pigeon_cli.pipeline.tokenize import tokenize
from pigeon_cli.report.json_report import read_schema
from pigeon_cli.weights.checkpoint import read_part, save_part
from pigeon_cli.weights.spec_file import spec_text
from pigeon_cli.weights.store import ModelFolder
from tests.small_memory import small_memory
from tests.tiny_model import write_tiny_model

Pigeon = Callable[..., Result]
CAT, FOX = 0, 1
"""Things, and the numbers of their first drawings."""


@pytest.fixture
def remembering(tmp_path: Path) -> ModelFolder:
    """A tiny model that remembers a cat, and a fox by two hands, and knows how the fox looks."""
    folder = write_tiny_model(tmp_path / "remembering")
    assert folder.spec.taste is not None
    torch.manual_seed(0)
    latents = torch.randn(3, folder.spec.diffusion.vae["latent_channels"], 8, 8).bfloat16().float()
    memory = small_memory(
        2, 1, [(CAT, 0), (FOX, 1), (FOX, 2)], latents, taste_width=folder.spec.taste.width, substitutes=1
    )
    memory.kinship[1, 2] = memory.kinship[2, 1] = 0.8
    # The history's hand, as long as a test does not say otherwise: the fox's.
    with torch.no_grad():
        memory.tells_hand.weight.zero_()
        memory.tells_hand.bias.copy_(torch.tensor([0.0, 50.0, 0.0]))
    with torch.no_grad():
        torch.nn.init.orthogonal_(memory.projection.weight)
        memory.learn_keys(lines_of(memory, [fox_picture()]))
    memory.key_drawings.fill_(FOX)
    (folder.path / "config.json").write_text(spec_text(replace(folder.spec, memory=memory.config)))
    found = ModelFolder(folder.path)
    save_part(found.part("memory"), memory.state_dict())
    (folder.path / MEMORY_LIST).write_text("happy cat\tpet\nred fox\tanimal\n", encoding="utf-8")
    return found


def fox_picture(colour: str = "red") -> Image.Image:
    image = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(image).polygon([(20, 20), (60, 50), (100, 20), (60, 110)], fill=colour)
    return image


def shown_codes(model: ModelFolder, drawing: int, colours: ColourSpread | None = None) -> tuple[int, ...]:
    """Codes of the picture that the VAE decodes from the latents of a drawing, in these ``colours``."""
    session = Session(model, choose_device("cpu"))
    with torch.inference_mode(), session.parts.use(MEMORY) as memory, session.parts.use(VAE) as vae:
        shown = Image.fromarray(decode_latents(vae, memory.latents([drawing]))[0].numpy())
        if colours is not None:
            shown = as_image(in_colours(pixels_of([shown])[0], colours))
        with session.parts.use(TOKENIZER) as tokenizer:
            return tokenize(tokenizer, [shown])[0].codes


def test_a_prompt_brings_back_the_drawing_that_it_names(pigeon: Pigeon, liked: Path, remembering: ModelFolder) -> None:
    result = pigeon("--history", liked, "--prompt", "a red fox", "-n", "2", "--json", "--model", remembering.path)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    jsonschema.validate(report, read_schema())
    assert report["recalled"] == "red fox"
    assert "memory.safetensors" in {file["name"] for file in report["model"]["weights"]}
    shown = shown_codes(remembering, FOX)
    assert {tuple(each["reference_tokens"]["codes"]) for each in report["candidates"]} == {shown}
    # Unlike a reference that was imagined, this one is worth agreeing with.
    assert all(each["prescore_parts"]["reference"] is not None for each in report["candidates"])


def test_other_words_are_drawn_by_the_base_model(pigeon: Pigeon, liked: Path, remembering: ModelFolder) -> None:
    result = pigeon("--history", liked, "--prompt", "blue whale", "-n", "2", "--json", "--model", remembering.path)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["recalled"] is None
    remembered = {shown_codes(remembering, drawing) for drawing in range(3)}
    assert tuple(report["candidates"][0]["reference_tokens"]["codes"]) not in remembered


def test_the_masks_are_those_of_the_drawing(
    liked: Path, remembering: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--history", str(liked), "--prompt", "cat", "--json", "--device", "cpu", "--model", str(remembering.path)]
    result = CliRunner().invoke(app, ["inspect-mask", *words])
    assert result.exit_code == 0, result.output
    masks = json.loads(result.stdout)
    jsonschema.validate(masks, read_schema("masks-v1.schema.json"))
    # What was looked at is no file of the user's.
    assert masks["recalled"] == "happy cat" and masks["images"][-1]["name"] is None
    assert tuple(masks["images"][-1]["codes"]) == shown_codes(remembering, CAT)


@pytest.mark.parametrize(
    ("dial", "colour", "recalled"),
    [("auto", "blue", "red fox"), ("0.5", "red", "red fox"), ("0", "red", None)],
)
def test_a_reference_that_is_recognised_is_put_aside_unless_it_is_to_be_followed(
    pigeon: Pigeon, liked: Path, remembering: ModelFolder, tmp_path: Path, dial: str, colour: str, recalled: str | None
) -> None:
    path = tmp_path / "wish.png"
    fox_picture(colour).save(path)
    options = ["--ref", path, "--ref-mask", dial, "-n", "1", "--json", "--model", remembering.path]
    result = pigeon("--history", liked, *options)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["recognised"], report["recalled"]) == (recalled, recalled)
    shown = shown_codes(remembering, FOX)
    assert (tuple(report["candidates"][0]["reference_tokens"]["codes"]) == shown) == (recalled is not None)


def test_a_recognised_reference_gives_way_to_the_drawing_by_the_hand_that_is_told(
    pigeon: Pigeon, liked: Path, remembering: ModelFolder, tmp_path: Path
) -> None:
    fox_picture().save(tmp_path / "wish.png")
    options = ["--ref", tmp_path / "wish.png", "-n", "1", "--json", "--force", "--model", remembering.path]

    def shown() -> tuple[int, ...]:
        result = pigeon("--history", liked, *options)
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert report["recalled"] == "red fox"
        return tuple(report["candidates"][0]["reference_tokens"]["codes"])

    first, second = (shown_codes(remembering, drawing) for drawing in (FOX, FOX + 1))
    assert first != second
    assert shown() == first
    weights = read_part(remembering.part("memory"))
    weights["tells_hand.bias"] = torch.tensor([0.0, 0.0, 50.0])
    save_part(remembering.part("memory"), weights)
    assert shown() == second


@pytest.mark.parametrize("wanted", ["reference", "words"])
def test_a_drawing_that_should_be_alike_stands_in_and_it_is_said(
    pigeon: Pigeon, liked: Path, remembering: ModelFolder, tmp_path: Path, wanted: str
) -> None:
    weights = read_part(remembering.part("memory"))
    weights["tells_hand.bias"] = torch.tensor([50.0, 0.0, 0.0])
    weights["substitutes"][0], weights["likeness"][0] = torch.tensor([FOX, 0, CAT]), 200
    save_part(remembering.part("memory"), weights)
    fox_picture().save(tmp_path / "wish.png")
    asked = ["--ref", tmp_path / "wish.png"] if wanted == "reference" else ["--prompt", "a red fox"]
    result = pigeon("--history", liked, *asked, "-n", "1", "--json", "--model", remembering.path)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    jsonschema.validate(report, read_schema())
    assert (report["recognised"], report["recalled"]) == ("red fox", "happy cat")
    (told,) = [each for each in report["warnings"] if "'red fox'" in each and "'happy cat'" in each]
    # A prompt has no reference that --ref-mask alone could bring back.
    assert "--ref IMG and --ref-mask 0" in told
    words = ["--history", str(liked), *map(str, asked), "--json", "--device", "cpu", "--model", str(remembering.path)]
    masks = CliRunner().invoke(app, ["inspect-mask", *words])
    assert told in json.loads(masks.stdout)["warnings"] and f"warning: {told}\n" in masks.stderr
    shown = shown_codes(remembering, CAT)
    assert tuple(report["candidates"][0]["reference_tokens"]["codes"]) == shown


def test_words_bring_back_another_hands_drawing_and_it_is_said(
    pigeon: Pigeon, liked: Path, remembering: ModelFolder
) -> None:
    def told() -> list[str]:
        result = pigeon(
            "--history", liked, "--prompt", "a red fox", "-n", "1", "--json", "--force", "--model", remembering.path
        )
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert report["recalled"] == "red fox"
        return [each for each in report["warnings"] if "another hand's lines" in each and "'red fox'" in each]

    assert told() == []
    weights = read_part(remembering.part("memory"))
    weights["tells_hand.bias"], weights["likeness"] = torch.tensor([50.0, 0.0, 0.0]), torch.zeros(1).byte()
    save_part(remembering.part("memory"), weights)
    assert len(told()) == 1


def report_of_a_fox(pigeon: Pigeon, liked: Path, model: ModelFolder, folder: Path) -> dict[str, Any]:
    fox_picture().save(folder / "wish.png")
    result = pigeon("--history", liked, "--ref", folder / "wish.png", "-n", "1", "--json", "--model", model.path)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.mark.parametrize("alike", [False, True])
def test_another_hands_drawing_in_foretold_colours_stands_in_where_nothing_alike_was_drawn(
    alike: bool, pigeon: Pigeon, liked: Path, remembering: ModelFolder, tmp_path: Path
) -> None:
    config = remembering.spec.memory
    assert config is not None
    foretelling = replace(remembering.spec, memory=replace(config, foretold=1))
    (remembering.path / "config.json").write_text(spec_text(foretelling))
    colours = ColourSpread(torch.tensor([0.25, 0.5, 0.75]), 0.03125 * torch.eye(3))
    weights = read_part(remembering.part("memory"))
    weights["foretold"] = torch.tensor([[FOX, 0]], dtype=torch.int16)
    weights["foretold_colours"] = torch.cat([colours.mean[None], colours.covariance])[None]
    # The foxes' hands are not near to the first, which is that of the cat.
    weights["tells_hand.bias"], weights["kinship"] = torch.tensor([50.0, 0.0, 0.0]), torch.eye(3)
    weights["substitutes"] = torch.tensor([[FOX, 0, CAT]], dtype=torch.int16)
    weights["likeness"] = torch.full((1,), 255 if alike else 0, dtype=torch.uint8)
    save_part(remembering.part("memory"), weights)
    report = report_of_a_fox(pigeon, liked, remembering, tmp_path)
    assert report["recalled"] == ("happy cat" if alike else "red fox")
    assert any("'red fox'" in each and "foretold" in each for each in report["warnings"]) is not alike
    model = ModelFolder(remembering.path)
    shown = shown_codes(model, CAT) if alike else shown_codes(model, FOX, colours)
    assert tuple(report["candidates"][0]["reference_tokens"]["codes"]) == shown


def test_another_hands_drawing_is_redrawn_where_that_is_known(
    pigeon: Pigeon, liked: Path, remembering: ModelFolder, tmp_path: Path
) -> None:
    config = remembering.spec.memory
    assert config is not None
    redrawing = replace(remembering.spec, memory=replace(config, redrawn=1))
    (remembering.path / "config.json").write_text(spec_text(redrawing))
    weights = read_part(remembering.part("memory"))
    drawing = weights["things"].tolist().index(FOX)
    weights["redrawn"] = torch.tensor([[FOX, 0, drawing]], dtype=torch.int16)
    weights["redrawn_boxes"] = torch.tensor([[26, 230, 26, 230]], dtype=torch.uint8)
    palette = torch.full((PALETTE, 3), 255, dtype=torch.uint8)
    turned = palette.clone()
    palette[0], turned[0] = torch.tensor([0, 0, 0]), torch.tensor([40, 90, 200])
    weights["redrawn_colours"] = torch.stack([palette, turned])[None]
    weights["tells_hand.bias"], weights["kinship"] = torch.tensor([50.0, 0.0, 0.0]), torch.eye(3)
    weights["likeness"] = torch.zeros(1).byte()
    save_part(remembering.part("memory"), weights)
    report = report_of_a_fox(pigeon, liked, remembering, tmp_path)
    assert report["recalled"] == "red fox"
    assert any("'red fox'" in each and "foretold" in each for each in report["warnings"])
    model = ModelFolder(remembering.path)
    assert tuple(report["candidates"][0]["reference_tokens"]["codes"]) != shown_codes(model, FOX)


def test_a_reference_that_is_nothing_known_stays(
    pigeon: Pigeon, liked: Path, remembering: ModelFolder, wish: Path
) -> None:
    result = pigeon("--history", liked, "--ref", wish, "-n", "1", "--json", "--model", remembering.path)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["recalled"] is None and report["look"] is None


@pytest.mark.parametrize(
    ("asked", "dial", "shown"), [("unknown", "0.1", True), ("known", "0", True), ("words", "0.1", False)]
)
def test_a_reference_that_stays_is_shown_in_the_look(
    pigeon: Pigeon,
    liked: Path,
    remembering: ModelFolder,
    wish: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    dial: str,
    shown: bool,
) -> None:
    sheet = torch.tensor([[0.2, 0.8, 0.4], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    monkeypatch.setattr(recall, "look_of", lambda *_: WornLook(Unchanged(), sheet=sheet, error=0.1))
    fox_picture().save(tmp_path / "known.png")
    ask = ["--prompt", "blue whale"]
    if asked != "words":
        ask = ["--ref", str(wish if asked == "unknown" else tmp_path / "known.png")]
    options = ["--ref-mask", dial, "-n", "1", "--json", "--model", remembering.path, "--out", tmp_path / "drawn"]
    result = pigeon("--history", liked, *ask, *options)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    jsonschema.validate(report, read_schema())
    assert report["recalled"] is None and (report["look"] is not None) is shown
    with Image.open(tmp_path / "drawn" / report["outputs"][0]["file"]) as image:
        corner = image.convert("RGB").getpixel((0, 0))
    if asked == "known":
        assert corner == pytest.approx((51, 204, 102), abs=2)


def test_the_masks_of_a_recognised_reference_are_those_of_generate(
    pigeon: Pigeon, liked: Path, remembering: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fox_picture().save(tmp_path / "wish.png")
    common = ["--ref", "wish.png", "--ref-mask", "0.5", "--json", "--model", str(remembering.path)]
    drawn = pigeon("--history", liked, *common, "-n", "1")
    seen = CliRunner().invoke(app, ["inspect-mask", "--history", str(liked), "--device", "cpu", *common])
    assert seen.exit_code == 0, seen.output
    masks, report = json.loads(seen.stdout), json.loads(drawn.stdout)
    assert masks["recalled"] == report["recalled"] == "red fox"
    assert masks["reference"]["path"] == "wish.png" and masks["images"][-1]["sha256"] is None
    tokens = report["candidates"][0]["reference_tokens"]
    assert masks["images"][-1]["kept"] == tokens["kept"]


def test_a_plan_counts_the_drawing_of_what_is_recalled(pigeon: Pigeon, liked: Path, remembering: ModelFolder) -> None:
    options = ["--prompt", "a red fox", "-n", "1", "--json", "--dtype", "float32", "--model", remembering.path]
    result = pigeon("--history", liked, *options)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["recalled"] == "red fox"
    runs = [step["name"] for step in report["plan"]["steps"] if step["kind"] == "run"]
    assert runs[0] == "recall"


def test_a_model_without_its_memory_is_incomplete(pigeon: Pigeon, liked: Path, remembering: ModelFolder) -> None:
    remembering.part("memory").unlink()
    result = pigeon("--history", liked, "--prompt", "cat", "--model", remembering.path)
    assert result.exit_code == 3
    assert "memory.safetensors" in result.stderr
