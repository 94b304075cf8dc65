"""Which drawings share their lines."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from pigeon_cli.models.outlines import outlines
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.alike import ALIKE
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
    first, second = (outlines(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:])[0] for rgba in (one, other))
    return float(first @ second)


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
    sources, own, kin = restyler._sources(random.Random(0), wanted, SourceShares(0.0, 0.0, 0.0, alike=1.0))
    assert not any(own) and not any(kin)
    for record, source in zip(wanted, sources, strict=True):
        assert source in (restyler.alike[record.id] or [record])


def test_other_finishes_by_the_same_hand_are_seen_as_drawn_and_as_remembered(icons: Path) -> None:
    dataset = load_dataset(icons)
    seen: list[torch.Tensor] = []

    def remembered(plain: torch.Tensor) -> torch.Tensor:
        seen.append(plain)
        return torch.zeros_like(plain)

    restyler = Restyler(IconBatches(dataset, torch.device("cpu")), remembered=remembered)
    wanted = list(dataset.by_split["train"])
    shares = SourceShares(0.0, 0.0, 0.0, kin=1.0)
    sources, own, kin = restyler._sources(random.Random(0), wanted, shares)
    assert not any(own) and any(kin)
    for record, source, other in zip(wanted, sources, kin, strict=True):
        assert (source.set != record.set) == other
        assert (source.family, source.meaning, source.split) == (record.family, record.meaning, "train")
    drawn = restyler.draw(random.Random(0), 60, shares)
    count = sum(map(len, seen))
    assert 0 < count < 60
    # What came back is what is seen of the source, where the look puts it; black here, on white paper.
    black = (drawn.sources < 0.02).all(1).flatten(1).float().mean(1) > 0.3
    assert int(black.sum()) >= count
