"""Which drawings share their lines."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.alike import ALIKE, outlines
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.restyle import Restyler, SourceShares


def square(left: int, colour: tuple[float, float, float], hollow: bool = False) -> torch.Tensor:
    """A square of 32 pixels in a picture of 64 [1, 4, 64, 64], transparent around it."""
    rgba = torch.zeros(1, 4, 64, 64)
    rgba[0, :3, 16:48, left : left + 32] = torch.tensor(colour)[:, None, None]
    rgba[0, 3, 16:48, left : left + 32] = 1
    if hollow:
        rgba[0, 3, 20:44, left + 4 : left + 28] = 0
    return rgba


def agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(outlines(one)[0] @ outlines(other)[0])


def test_lines_agree_whatever_is_between_them_and_not_at_another_place() -> None:
    filled = square(16, (0.9, 0.8, 0.1))
    assert agreement(filled, square(16, (0.0, 0.0, 0.0))) > 0.99
    assert agreement(filled, square(16, (0.0, 0.0, 0.0), hollow=True)) > ALIKE
    assert agreement(filled, square(0, (0.9, 0.8, 0.1))) < ALIKE
    # An empty picture has no lines to agree with.
    assert agreement(filled, torch.zeros(1, 4, 64, 64)) == 0


def test_pictures_are_drawn_from_others_with_their_lines_and_else_from_their_own_plain_drawing(icons: Path) -> None:
    dataset = load_dataset(icons)
    restyler = Restyler(IconBatches(dataset, torch.device("cpu")))
    pairs = [(number, other) for number, others in restyler.alike.items() for other in others]
    assert pairs
    for number, other in pairs:
        record = dataset.records[number]
        assert other.meaning == record.meaning
        assert other.split == "train"
        assert other.twins != record.twins
    wanted = list(dataset.by_split["train"])
    sources, own = restyler._sources(random.Random(0), wanted, SourceShares(0.0, 0.0, 0.0, alike=1.0))
    assert not any(own)
    for record, source in zip(wanted, sources, strict=True):
        assert source in (restyler.alike[record.id] or [record])
