"""The list of models, and what is chosen from a source that holds more."""

from __future__ import annotations

import pytest

from pigeon_cli.core.errors import UsageError, WeightsError
from pigeon_cli.weights.catalog import Wanted, load_catalog
from pigeon_cli.weights.plan import named_sources
from pigeon_cli.weights.sources import parse_source

PUBLISHED = [
    "README.md",
    "language_model/config.json",
    "language_model/generation_config.json",
    "language_model/pytorch_model-00001-of-00003.bin",
    "language_model/pytorch_model-00002-of-00003.bin",
    "language_model/pytorch_model-00003-of-00003.bin",
    "language_model/pytorch_model.bin.index.json",
    "language_model/tokenizer.model",
    "language_model/visual_weight.bin",
    "visual_tokenizer/eva_vitg_psz14.bin",
    "visual_tokenizer/highres_tokenizer_decoder.bin",
    "visual_tokenizer/tokenizer_decoder.bin",
    "visual_tokenizer/tokenizer_encoder.bin",
    "highres_pixel_decoding/scheduler/scheduler_config.json",
    "highres_pixel_decoding/unet/config.json",
    "highres_pixel_decoding/unet/diffusion_pytorch_model.bin",
    "highres_pixel_decoding/vae/config.json",
    "highres_pixel_decoding/vae/diffusion_pytorch_model.safetensors",
    "pixel_decoding/uncond_embeddings.bin",
    "pixel_decoding/unet/diffusion_pytorch_model.bin",
]
UNWANTED = {"README.md", "language_model/visual_weight.bin", "visual_tokenizer/tokenizer_decoder.bin"}


def test_the_files_that_are_needed_and_no_others() -> None:
    (part,) = load_catalog().model("lavit-7b-v2").parts
    wanted = {name for name in PUBLISHED if name not in UNWANTED and not name.startswith("pixel_decoding/")}
    assert set(part.choose(PUBLISHED)) == wanted


@pytest.mark.parametrize(
    "name", [name for name in PUBLISHED if name.endswith((".bin", ".model")) and "pixel_decoding/u" not in name]
)
def test_a_needed_file_that_lacks_is_named(name: str) -> None:
    (part,) = load_catalog().model("lavit-7b-v2").parts
    rest = [other for other in PUBLISHED if other != name]
    if name in UNWANTED:
        assert name not in part.choose(rest)
    else:
        with pytest.raises(WeightsError, match=name.partition("-0")[0]):
            part.choose(rest)


def test_shards_of_an_incomplete_set_are_not_taken() -> None:
    wanted = Wanted(("a-*-of-*.bin", "a.bin"), shards=True)
    assert wanted.choose(["a-1-of-2.bin", "a.bin"]) == ("a.bin",)
    assert wanted.choose(["a-1-of-2.bin", "a-2-of-2.bin", "a.bin"]) == ("a-1-of-2.bin", "a-2-of-2.bin")


def test_a_star_stays_within_its_folder() -> None:
    assert Wanted(("a/*.json",), optional=True).choose(["a/b/c.json", "a/d.json"]) == ("a/d.json",)


@pytest.mark.parametrize("name", ["sticker", "poster"])
def test_combinations_are_base_alignment_and_scorer(name: str) -> None:
    model = load_catalog().model(name)
    assert [part.name for part in model.parts] == ["lavit-7b-v2", f"pigeon-{name}", "clip-vit-h-14"]
    assert model.parts[1].alignment == name
    assert [part.licence.accept for part in model.parts if part.licence] == [True, True, False]


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError) as caught:
        load_catalog().model("nothing")
    assert "lavit-7b-v2" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "kind", "name", "revision"),
    [
        ("hub:a/b", "hub", "a/b", "main"),
        ("hub:a/b@v1", "hub", "a/b", "v1"),
        ("drive:1Hax0_-Z", "drive", "1Hax0_-Z", ""),
        ("/some/folder", "folder", "/some/folder", ""),
    ],
)
def test_forms_of_a_source(text: str, kind: str, name: str, revision: str) -> None:
    source = parse_source(text)
    assert (source.kind, source.name, source.revision) == (kind, name, revision)
    assert parse_source(str(source)) == source


@pytest.mark.parametrize("text", ["", "hub:", "hub:/a", "hub:a/b/c", "drive:", "drive:a/b", "drive:a b"])
def test_no_source(text: str) -> None:
    with pytest.raises(UsageError):
        parse_source(text)


def test_the_source_of_a_combination_names_its_part() -> None:
    sticker, single = load_catalog().model("sticker"), load_catalog().model("clip-vit-h-14")
    assert named_sources(sticker, ["pigeon-sticker=x", "clip-vit-h-14=hub:a/b"]) == {
        "pigeon-sticker": "x", "clip-vit-h-14": "hub:a/b",
    }  # fmt: skip
    assert named_sources(single, ["a=b"]) == {"clip-vit-h-14": "a=b"}
    with pytest.raises(UsageError, match="which part"):
        named_sources(sticker, ["x"])
