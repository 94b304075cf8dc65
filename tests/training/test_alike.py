"""Which drawings share their lines."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from pigeon_cli.models.outlines import outlines
from pigeon_cli.training.data.alike import ALIKE
from pigeon_cli.training.data.dataset import IconRecord, load_dataset
from pigeon_cli.training.sources import SourceChooser, SourceShares


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


def chosen(icons: Path, shares: SourceShares) -> list[tuple[IconRecord, IconRecord, bool]]:
    """Every train record, what it is drawn from, and whether that is the picture itself."""
    dataset = load_dataset(icons)
    records = dataset.by_split["train"]
    sources, rng = SourceChooser(dataset, records), random.Random(0)
    return [(record, *sources.choose(rng, record, shares)) for record in records]


def test_pictures_are_drawn_from_others_with_their_lines_and_else_from_other_families_or_themselves(
    icons: Path,
) -> None:
    dataset = load_dataset(icons)
    alike = SourceChooser(dataset, dataset.by_split["train"]).alike
    pairs = [(number, other) for number, others in alike.items() for other in others]
    assert pairs
    for number, other in pairs:
        record = dataset.records[number]
        assert other.meaning == record.meaning
        assert other.split == "train"
        assert other.twins != record.twins
    for record, source, own in chosen(icons, SourceShares(0.0, 0.0, alike=1.0)):
        assert not own
        assert source in alike[record.id] or not alike[record.id]
        assert source == record or source in alike[record.id] or source.family != record.family


def test_other_finishes_by_the_same_hand_are_of_another_set(icons: Path) -> None:
    found = chosen(icons, SourceShares(0.0, 0.0, kin=1.0))
    assert any(source.set != record.set and source.family == record.family for record, source, _ in found)
    for record, source, own in found:
        assert not own
        assert (source.meaning, source.split) == (record.meaning, "train")
        assert source == record or source.set != record.set


def test_only_what_is_drawn_from_itself_wears_its_look(icons: Path) -> None:
    assert all(own and source == record for record, source, own in chosen(icons, SourceShares(1.0, 0.0)))
    assert all(not own and source == record for record, source, own in chosen(icons, SourceShares(0.0, 1.0)))
