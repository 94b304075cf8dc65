"""The split rule, and twins that must share a cell."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from pigeon_cli.training.data.splits import assign_splits, is_unseen, rule_split
from pigeon_cli.training.data.twins import near_identical, person_base, twin_groups


def _meaning(split: str, style: str = "noto", skip: int = 0) -> str:
    found = [name for name in (f"thing{n}" for n in range(3000)) if rule_split(name, style) == split]
    return found[skip]


def _disc(colour: tuple[int, int, int], centre: int, size: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    inside = (rows - size // 2) ** 2 + (columns - centre) ** 2 < (size // 4) ** 2
    return np.dstack([np.full((size, size, 3), colour, np.uint8), (inside * 255).astype(np.uint8)])


def test_rule_is_the_written_one() -> None:
    for number in range(500):
        meaning = f"m{number}"
        rest = zlib.crc32(f"{meaning}/twemoji".encode()) % 10
        expected = "test" if rest == 0 else "valid" if rest == 1 else "train"
        if zlib.crc32(meaning.encode()) % 20 == 0:
            expected = "unseen"
            assert is_unseen(meaning)
        assert rule_split(meaning, "twemoji") == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (("train", "train"), "train"),
        (("train", "valid"), "valid"),
        (("valid", "test"), "test"),
        (("test", "unseen"), "unseen"),
        (("unseen", "train"), "unseen"),
    ],
)
def test_twins_take_the_strongest_split(members: tuple[str, str], expected: str) -> None:
    cells = [(_meaning(split, skip=index), "noto") for index, split in enumerate(members)]
    assert assign_splits(cells, [0, 0]) == [expected] * 2


def test_cells_that_are_no_twins_keep_their_own_split() -> None:
    cells = [(_meaning(split), "noto") for split in ("train", "valid", "test", "unseen")]
    assert assign_splits(cells, [0, 1, 2, 3]) == ["train", "valid", "test", "unseen"]


@pytest.mark.parametrize("turned", [False, True])
def test_another_name_of_an_unseen_meaning_is_unseen(turned: bool) -> None:
    unseen, seen = _meaning("unseen"), _meaning("train")
    pair = (seen, unseen) if turned else (unseen, seen)
    assert assign_splits([(seen, "noto")], [0]) == ["train"]
    assert assign_splits([(seen, "noto")], [0], [pair]) == ["unseen"]


def test_person_base() -> None:
    assert person_base("woman-cook") == person_base("man-cook") == person_base("cook") == "cook"
    assert person_base("man-running-facing-right") == person_base("person-running") == "running"
    assert person_base("snowman") == "snowman"
    assert person_base("mango") != person_base("go")


def test_twins_by_variant_and_by_body_but_not_across_sets() -> None:
    colours = [(int(red), 40, 90) for red in np.linspace(0, 255, 5)]
    images = np.stack([_disc(colour, 20 + 5 * index) for index, colour in enumerate(colours)])
    names = ["cook", "woman-cook", "cook", "pot", "kettle"]
    groups = twin_groups(images, ["noto", "noto", "twemoji", "noto", "noto"], names, ["a", "b", "c", "d", "d"])
    assert groups == [0, 0, 2, 3, 3]


def test_near_identical_sees_a_small_change_and_not_a_large_one() -> None:
    images = np.stack(
        [_disc((200, 30, 30), 32), _disc((203, 30, 28), 32), _disc((30, 30, 200), 32), _disc((200, 30, 30), 40)]
    )
    assert near_identical(images) == [(0, 1)]


def test_near_identical_ignores_colours_of_transparent_pixels() -> None:
    first, second = _disc((200, 30, 30), 32), _disc((200, 30, 30), 32)
    second[second[..., 3] == 0] = (9, 250, 9, 0)
    assert near_identical(np.stack([first, second])) == [(0, 1)]
