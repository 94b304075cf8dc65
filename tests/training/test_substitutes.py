"""Which drawing stands in for one that a hand lacks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.dataset import IconRecord
from pigeon_cli.training.substitutes import DrawnThings, substitutes

HANDS = ("round", "square")
SHAPES = {"lion": 0, "tiger": 0, "wolf": 1, "whale": 2, "anchor": 0}
"""Things are drawn in shapes; those with the same shape look alike."""
DRAWN = [
    ("lion", "round"), ("tiger", "round"), ("wolf", "round"), ("whale", "round"), ("anchor", "round"),
    ("tiger", "square"), ("wolf", "square"), ("whale", "square"), ("anchor", "square"),
]  # fmt: skip
THINGS = sorted(SHAPES)
LION, TIGER, WOLF, ANCHOR = (THINGS.index(name) for name in ("lion", "tiger", "wolf", "anchor"))


def record(number: int, meaning: str, name: str) -> IconRecord:
    subgroup = "ships" if meaning == "anchor" else "animals"
    return IconRecord(
        number,
        name,
        name,
        meaning,
        meaning,
        f"{meaning}/{name}",
        "train",
        number,
        "MIT",
        "",
        meaning,
        (),
        "g",
        subgroup,
    )


RECORDS = [record(number, meaning, name) for number, (meaning, name) in enumerate(DRAWN)]


def picture(one: IconRecord) -> Tensor:
    """RGBA [4, 32, 32]: a bar whose place tells the shape and whose colour tells the hand."""
    drawn = torch.zeros(4, 32, 32)
    shape = SHAPES[one.meaning]
    drawn[3, :, 10 * shape : 10 * shape + 8] = 1
    drawn[HANDS.index(one.set), :, 10 * shape : 10 * shape + 8] = 1
    return drawn


@pytest.fixture
def drawn() -> DrawnThings:
    batches = SimpleNamespace(rgba=lambda records: torch.stack([picture(one) for one in records]))
    lines = functional.normalize(torch.stack([picture(one)[3].flatten() for one in RECORDS]), dim=1)
    return DrawnThings(cast(IconBatches, batches), RECORDS, lines, HANDS)


KIN = torch.tensor([[1.0, 0.5], [0.5, 1.0]])


def test_things_that_another_hand_draws_alike_stand_in_for_one_another(drawn: DrawnThings) -> None:
    assert drawn.things == THINGS
    entries, likeness = substitutes(drawn, KIN, ~drawn.present)
    assert entries.tolist() == [[LION, 1, TIGER]]
    assert float(likeness) > 0.9


def test_what_should_be_too_little_alike_is_no_substitute(drawn: DrawnThings) -> None:
    foretold = float(drawn.foretell(1, KIN)[LION, TIGER])
    assert len(substitutes(drawn, KIN, ~drawn.present, foretold - 0.01)[0]) == 1
    assert len(substitutes(drawn, KIN, ~drawn.present, foretold + 0.01)[0]) == 0
    assert len(substitutes(drawn, KIN, torch.zeros_like(drawn.present))[0]) == 0


def test_what_merely_looks_alike_does_not_stand_in(drawn: DrawnThings) -> None:
    drawn.present[TIGER, 1] = False
    foretold = drawn.foretell(1, KIN)
    # The anchor is drawn as the lion is, but is no animal.
    assert float(foretold[LION, ANCHOR]) > float(foretold[LION, WOLF])
    assert [LION, 1, ANCHOR] not in substitutes(drawn, KIN, ~drawn.present)[0].tolist()


def test_a_sign_is_no_other_sign(drawn: DrawnThings) -> None:
    drawn.pictures[LION] = False
    assert not len(substitutes(drawn, KIN, ~drawn.present)[0])
    assert not drawn.related[:, LION].any()


def test_a_drawing_is_foretold_without_looking_at_it(drawn: DrawnThings) -> None:
    before = drawn.foretell(1, KIN)[WOLF]
    drawn.lines[WOLF, 1] = drawn.lines[TIGER, 1]
    drawn.colours[WOLF, 1] = drawn.colours[TIGER, 1]
    after = drawn.foretell(1, KIN)[WOLF]
    others = torch.arange(len(THINGS)) != WOLF
    assert torch.equal(before[others], after[others])


def test_a_hand_without_drawings_gets_none(drawn: DrawnThings) -> None:
    drawn.present[:, 1] = False
    assert not len(substitutes(drawn, KIN, ~drawn.present)[0])
