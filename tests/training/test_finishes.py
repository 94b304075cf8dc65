"""What another set makes of the same lines, learned from pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pigeon_cli.engine.devices import choose_device
from pigeon_cli.training import forest_finishes
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.alike import outlines_of
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.data.sets import HANDS
from pigeon_cli.training.finishes import Finishes, sibling_pairs
from pigeon_cli.training.forest_finishes import (
    FlatFinisher,
    ForestFinisher,
    InkFinisher,
    ShadedFinisher,
    learned_finish,
)
from pigeon_cli.training.memory import kinship
from tests.training.test_memory import record, with_siblings

CPU = choose_device("cpu")
SIDE = 48
FLAT, SHADED, INK = range(3)
YELLOW, RED = torch.tensor([1.0, 0.8, 0.1]), torch.tensor([0.9, 0.1, 0.2])
DEEP = torch.tensor([0.5, 0.4, 0.6])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forests that grow in a second."""
    monkeypatch.setattr(forest_finishes, "REGION_TREES", 20)
    monkeypatch.setattr(forest_finishes, "PLACE_TREES", 10)


def drawings(count: int, seed: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The same squares on paper in flat colours, shaded from top to bottom, and as black outlines; the yellow ones."""
    generator = torch.Generator().manual_seed(seed)
    flat, shaded, ink = [], [], []
    for number in range(count):
        top, left = (int(torch.randint(4, 16, (), generator=generator)) for _ in range(2))
        side = int(torch.randint(16, 28, (), generator=generator))
        rows, columns = slice(top, top + side), slice(left, left + side)
        colour = YELLOW if number % 2 else RED
        pictures = [torch.ones(3, SIDE, SIDE) for _ in range(3)]
        pictures[0][:, rows, columns] = colour[:, None, None]
        fall = torch.linspace(0, 1, side)[None, :, None]
        pictures[1][:, rows, columns] = colour[:, None, None] * (1 - fall) + DEEP[:, None, None] * colour.max() * fall
        pictures[2][:, rows, columns] = 0
        pictures[2][:, top + 3 : top + side - 3, left + 3 : left + side - 3] = 1
        for kept, picture in zip((flat, shaded, ink), pictures, strict=True):
            kept.append(picture)
    return flat, shaded, ink


def tried(kind: type[ForestFinisher], siblings: int, own: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """What is given, what a finisher that has seen others makes of it, and what is wanted; numbers as in drawings."""
    learned, asked = drawings(12, 1), drawings(6, 2)
    given = torch.stack(asked[siblings])
    return given, kind(learned[siblings], learned[own])(given), asked[own]


def error(made: Tensor, wanted: list[Tensor]) -> float:
    return float((made - torch.stack(wanted)).abs().mean())


def test_pairs_are_of_one_thing_by_two_siblings() -> None:
    flat, soft = HANDS.index("fluent-emoji-flat"), HANDS.index("fluent-emoji")
    twemoji = HANDS.index("twemoji")
    kin = torch.full((len(HANDS), len(HANDS)), 0.9)
    sources = [record(0, "fox", flat), record(1, "cat", flat), record(2, "fox", twemoji)]
    wanted = [record(3, "fox", soft), record(4, "dog", soft)]
    assert sibling_pairs(sources, wanted, kin) == [(sources[0], wanted[0])]
    kin[soft, flat] = 0.5
    assert sibling_pairs(sources, wanted, kin) == []


def test_a_flat_hand_lays_on_few_colours_of_its_own() -> None:
    given, made, wanted = tried(FlatFinisher, SHADED, FLAT)
    assert error(made, wanted) < 0.25 * error(given, wanted)
    inside = made[1, :, 22, 22]
    assert float((inside - YELLOW).abs().max()) < 0.01, "not a mixture of the hand's colours"


def test_ink_is_black_or_white_and_lies_along_borders() -> None:
    _, made, wanted = tried(InkFinisher, FLAT, INK)
    assert torch.equal(made[:, 0], made[:, 2])
    assert error(made, wanted) < 0.03
    assert float(((made > 0.05) & (made < 0.95)).float().mean()) < 0.1


def test_a_shading_hand_changes_what_is_drawn_and_leaves_the_paper() -> None:
    given, made, wanted = tried(ShadedFinisher, FLAT, SHADED)
    assert error(made, wanted) < 0.5 * error(given, wanted)
    assert float(made[:, :, -1].min()) > 0.99


def test_a_row_does_not_depend_on_the_others_nor_on_the_hour() -> None:
    flat, shaded, _ = drawings(8, 1)
    once, again = FlatFinisher(shaded, flat), FlatFinisher(shaded, flat)
    pictures = torch.stack(shaded[:3])
    assert torch.equal(once(pictures)[1:2], again(pictures[1:2]))


def test_blank_paper_stays_paper() -> None:
    flat, shaded, ink = drawings(8, 1)
    blank = torch.ones(1, 3, SIDE, SIDE)
    for finish in (FlatFinisher(shaded, flat), InkFinisher(flat, ink), ShadedFinisher(flat, shaded)):
        assert float((finish(blank) - 1).abs().max()) < 0.01


@pytest.mark.parametrize(
    ("hand", "kind"),
    [
        ("fluent-emoji", ShadedFinisher),
        ("fluent-emoji-flat", FlatFinisher),
        ("fluent-emoji-high-contrast", InkFinisher),
        ("emojione-monotone", InkFinisher),
    ],
)
def test_every_hand_has_its_finisher(hand: str, kind: type) -> None:
    flat, shaded, ink = drawings(4, 1)
    own = ink if kind is InkFinisher else flat
    assert type(learned_finish(hand, shaded, own)) is kind


def test_a_finish_is_learned_once_from_train_pairs(icons: Path) -> None:
    batches = IconBatches(with_siblings(load_dataset(icons)), CPU.device)
    kin = kinship(batches.train, outlines_of(batches.dataset, batches.train))
    said: list[str] = []
    finishes = Finishes(batches, said.append, kin)
    pictures, hand = torch.rand(2, 3, 32, 32), HANDS.index("emojione-monotone")
    made = finishes(pictures, hand)
    assert made.shape == pictures.shape and float(made.min()) >= 0 and float(made.max()) <= 1
    assert torch.equal(finishes(pictures, hand), made)
    owned = {one.meaning for one in batches.train if one.set == "emojione"}
    pairs = sum(one.set == "emojione-monotone" and one.meaning in owned for one in batches.train)
    assert said == [f"memory: the finish of emojione-monotone is learned from {pairs} pairs"]
