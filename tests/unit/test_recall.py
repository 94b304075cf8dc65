"""Which drawing that is known by heart words or a picture ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.models.colour_transfer import ColourSpread
from pigeon_cli.models.memory import Memory
from pigeon_cli.models.redrawing import PALETTE, Redrawing
from pigeon_cli.pipeline.recall import (
    MEMORY_LIST,
    NEAR,
    Found,
    Remembered,
    drawing_alike,
    find_drawing,
    lines_of,
    named_thing,
    nearest_drawing,
    remembered,
    seen_thing,
)
from tests.small_memory import small_memory

DRAWINGS = tuple(
    Remembered(*entry)
    for entry in (
        ("birthday cake", "celebration dessert pastry"),
        ("shortcake", "cake dessert pastry sweet"),
        ("cat", "animal pet"),
        ("cat face", "animal pet"),
        ("crown", "clothing king queen"),
        ("red heart", "love"),
        ("blue heart", "love"),
        ("regional indicator a", "letter"),
    )
)


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ("birthday cake", "birthday cake"),
        ("A Birthday Cake!", "birthday cake"),
        ("cat", "cat"),
        ("a cat on the sofa", "cat"),
        ("face of a cat", "cat face"),
        ("a king", "crown"),
        ("blue heart", "blue heart"),
        ("blue 🦊", "blue heart"),
    ],
)
def test_words_bring_back_what_they_name(words: str, label: str) -> None:
    number = named_thing(DRAWINGS, words)
    assert number is not None and DRAWINGS[number].label == label


@pytest.mark.parametrize("words", ["", "a", "xyzzy", "the 狐", "a letter from the queen to her pet"])
def test_words_that_name_nothing_or_too_much_bring_nothing_back(words: str) -> None:
    assert named_thing(DRAWINGS, words) is None


def test_nothing_is_found_where_nothing_is_known() -> None:
    assert named_thing((), "cat") is None


def test_the_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    drawings = (*DRAWINGS, Remembered("plain"))
    (tmp_path / MEMORY_LIST).write_text("".join(f"{one.line()}\n" for one in drawings), encoding="utf-8")
    assert remembered(tmp_path) == drawings


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=MEMORY_LIST):
        remembered(tmp_path)


def square(left: int, colour: str = "black") -> Image.Image:
    """A square on white paper."""
    image = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(image).rectangle((left, 30, left + 60, 90), fill=colour)
    return image


def knowing(*pictures: Image.Image) -> Memory:
    """A memory that knows one thing by each of two ``pictures``, and drawings of them by several hands."""
    memory = small_memory(things=2, keys=2, drawings=[(0, 1), (0, 2), (1, 0)])
    torch.manual_seed(0)
    torch.nn.init.orthogonal_(memory.projection.weight)
    memory.learn_keys(lines_of(memory, pictures))
    memory.key_drawings.copy_(torch.tensor([0, 2]))
    return memory


def test_a_picture_is_recognised_by_its_lines_whatever_its_colours() -> None:
    memory = knowing(square(4), square(60))
    assert seen_thing(memory, square(60, "teal"), None) == 1
    assert seen_thing(memory, square(4, "orange").resize((500, 500)), None) == 0
    # A little beside it, but like nothing else at all.
    assert seen_thing(memory, square(7), None) == 0
    assert seen_thing(memory, square(10), None) is None


def test_what_looks_like_nothing_known_is_not_recognised_but_with_words_less_is_enough() -> None:
    memory = knowing(square(2), square(66))
    # Neither nearly the same as one of them nor clearly nearer to one.
    between = square(42)
    assert seen_thing(memory, between, None) is None
    assert seen_thing(memory, between, 0) == 0
    # Words about something else altogether do not make a picture of it.
    assert seen_thing(memory, square(66), 0) == 1
    assert seen_thing(memory, Image.new("RGB", (128, 128), "white"), 0) is None


def test_the_hand_nearest_to_the_taste_draws() -> None:
    memory = knowing(square(4), square(60))
    memory.kinship.copy_(torch.tensor([[1.0, 0.3, 0.9], [0.3, 1.0, 0.2], [0.9, 0.2, 1.0]]))
    first_hand, second_hand = torch.eye(3)[0], torch.eye(3)[1]
    # Of thing 0 there are drawings by hands 1 and 2; hand 2 draws as hand 0 does.
    assert nearest_drawing(memory, 0, first_hand) == 1
    assert nearest_drawing(memory, 0, second_hand) == 0
    assert nearest_drawing(memory, 1, second_hand) == 2
    assert nearest_drawing(memory, 1, second_hand, NEAR) is None
    # Without a taste the plainest, which is the first.
    assert nearest_drawing(memory, 0, None) == 0


def test_the_historys_own_hand_draws_where_it_can() -> None:
    memory = small_memory(1, 1, [(0, 0), (0, 1), (0, 2)])
    memory.kinship.copy_(torch.tensor([[1.0, 0.9, 0.9], [0.9, 1.0, 0.9], [0.9, 0.9, 1.0]]))
    likely = 0.25 + 0.25 * torch.eye(3)
    assert [nearest_drawing(memory, 0, hands) for hands in likely] == [0, 1, 2]


def test_what_a_hand_never_drew_is_another_hands_in_its_colours_if_the_hand_is_likely() -> None:
    colours = ColourSpread(torch.tensor([0.25, 0.5, 0.75]), 0.125 * torch.eye(3))
    memory = small_memory(1, 1, [(0, 0), (0, 1)], foretold={(0, 2): colours})
    memory.kinship.copy_(torch.tensor([[1.0, 0.2, 0.2], [0.2, 1.0, 0.5], [0.2, 0.5, 1.0]]))
    likely, unlikely = torch.tensor([0.1, 0.1, 0.8]), torch.tensor([0.32, 0.32, 0.36])
    found = find_drawing(memory, 0, likely, any_hand=False)
    assert found is not None and found.colours is not None and (found.drawing, found.by_other_hand) == (1, False)
    assert torch.equal(found.colours.mean, colours.mean.double())
    assert torch.equal(found.colours.covariance, colours.covariance.double())
    assert find_drawing(memory, 0, unlikely, any_hand=False) is None
    assert find_drawing(memory, 0, unlikely, any_hand=True) == Found(1, by_other_hand=True)
    assert find_drawing(memory, 0, torch.eye(3)[0], any_hand=False) == Found(0)
    # What a near hand drew comes first, as it is.
    memory.kinship[1, 2] = memory.kinship[2, 1] = 0.9
    assert find_drawing(memory, 0, likely, any_hand=False) == Found(1)


def test_what_should_become_of_another_hands_drawing_comes_before_its_colours_alone() -> None:
    redrawing = Redrawing((0.0, 1.0, 0.0, 1.0), *torch.zeros(2, PALETTE, 3, dtype=torch.uint8))
    colours = ColourSpread(torch.tensor([0.25, 0.5, 0.75]), 0.125 * torch.eye(3))
    memory = small_memory(
        1, 1, [(0, 0), (0, 1)], foretold={(0, 2): colours}, redrawn={(0, 2): (0, redrawing)}
    )  # fmt: skip
    memory.kinship.copy_(torch.eye(3))
    found = find_drawing(memory, 0, torch.tensor([0.1, 0.1, 0.8]), any_hand=False)
    assert found is not None and found.foretold and found.redrawing is not None and found.colours is None
    assert (found.drawing, found.by_other_hand) == (0, False)
    unlikely = torch.tensor([0.32, 0.32, 0.36])
    assert find_drawing(memory, 0, unlikely, any_hand=False) is None


@pytest.mark.parametrize(
    ("likeness", "certain", "found"), [(0.9, True, 0), (0.5, True, 0), (0.3, True, None), (0.9, False, None)]
)
def test_another_drawing_stands_in_where_it_is_like_enough_and_its_hand_is_likely(
    likeness: float, certain: bool, found: int | None
) -> None:
    memory = small_memory(2, 1, [(1, 2), (1, 1), (0, 0)], substitutes=1)
    memory.learn_substitutes(torch.tensor([[0, 2, 1]]), torch.tensor([likeness]))
    hands = torch.tensor([0.1, 0.1, 0.8] if certain else [0.32, 0.32, 0.36])
    assert drawing_alike(memory, 0, hands) == found
    assert drawing_alike(memory, 1, hands) is None
    assert drawing_alike(memory, 0, None) is None


def test_a_likely_hand_draws_itself_before_one_that_is_nearer_on_the_whole() -> None:
    memory = small_memory(1, 1, [(0, 0), (0, 1)])
    memory.kinship.copy_(torch.tensor([[1.0, 0.2, 0.2], [0.2, 1.0, 0.9], [0.2, 0.9, 1.0]]))
    assert nearest_drawing(memory, 0, torch.tensor([0.45, 0.3, 0.25]), NEAR) == 0
    assert nearest_drawing(memory, 0, torch.tensor([0.36, 0.33, 0.31]), NEAR) == 1
