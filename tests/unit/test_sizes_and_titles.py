"""Sizes of drawings by aspect ratio and long side, titles without years, and words in file names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pigeon_cli.core.errors import UsageError
from pigeon_cli.history.words import name_title, name_words, plain_title, title_of
from pigeon_cli.pipeline.sizes import ASPECTS, drawing_size
from pigeon_cli.weights.official_spec import BUNDLED_SPEC
from pigeon_cli.weights.spec_file import read_spec
from pigeon_cli.weights.store import find_model

CONFIG = read_spec(BUNDLED_SPEC).diffusion


@pytest.mark.parametrize(("aspect", "size"), ASPECTS.items())
def test_the_published_sizes(aspect: str, size: tuple[int, int]) -> None:
    assert drawing_size(CONFIG, "sticker", aspect, None) == size
    width, height = map(int, aspect.split(":"))
    assert size[1] / size[0] == pytest.approx(width / height, rel=0.04)


def test_posters_stand_upright_unless_told_otherwise() -> None:
    assert drawing_size(CONFIG, "poster", None, None) == (1216, 832)
    assert drawing_size(CONFIG, "sticker", None, None) == (1024, 1024)
    assert drawing_size(CONFIG, "poster", "1:1", None) == (1024, 1024)


@pytest.mark.parametrize(
    ("aspect", "long", "size"),
    [("1:1", 512, (512, 512)), ("2:3", 608, (608, 416)), ("16:9", 512, (296, 512)), ("4:3", 8, (8, 8))],
)
def test_a_long_side_scales_both_to_whole_cells(aspect: str, long: int, size: tuple[int, int]) -> None:
    assert drawing_size(CONFIG, "sticker", aspect, long) == size


def test_sizes_that_cannot_be_had() -> None:
    with pytest.raises(UsageError, match="no multiple of 8") as caught:
        drawing_size(CONFIG, "sticker", None, 500)
    assert "--size 496" in caught.value.hint
    mini = find_model("mini").spec.diffusion
    assert drawing_size(mini, "mini", None, None) == drawing_size(mini, "mini", "1:1", 128) == (128, 128)
    for aspect, size in (("2:3", None), (None, 256)):
        with pytest.raises(UsageError, match="128 x 128 pixels only"):
            drawing_size(mini, "mini", aspect, size)
    small = replace(CONFIG, image_size=128)
    assert drawing_size(small, "poster", None, None) == (152, 104)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Toy Story (1995)", "Toy Story"),
        (" Toy\n Story  (1995) ", "Toy Story"),
        ("1984 (1956)", "1984"),
        ("2001: A Space Odyssey", "2001: A Space Odyssey"),
        ("Alien (director's cut)", "Alien (director's cut)"),
        ("Heat (199)", "Heat (199)"),
        ("", ""),
    ],
)
def test_titles_lose_their_year(text: str, title: str) -> None:
    assert plain_title(text) == title


def test_a_sidecar_names_an_image_before_its_file_does(tmp_path: Path) -> None:
    path = tmp_path / "The_Matrix (1999).png"
    assert title_of(path) == name_title(path) == "The Matrix"
    path.with_suffix(".txt").write_text("Matrix, The (1999)\n", encoding="utf-8")
    assert title_of(path) == "Matrix, The"
    path.with_suffix(".txt").write_text("\n", encoding="utf-8")
    assert title_of(path) == "The Matrix"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("red-fox_2.png", "red fox"),
        ("Grinning Cat (1).webp", "Grinning Cat"),
        ("IMG_20240101.jpg", ""),
        ("DSC 0042.JPG", ""),
        ("8f3a2c.png", ""),
        ("лиса.png", "лиса"),
    ],
)
def test_words_of_file_names(name: str, words: str) -> None:
    assert name_words(Path(name)) == words
