"""How a hand would place and colour another's drawing, learned from train drawings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from pigeon_cli.engine.devices import choose_device
from pigeon_cli.models.redrawing import PALETTE
from pigeon_cli.training import redrawings
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.alike import outlines_of
from pigeon_cli.training.data.dataset import IconDataset, load_dataset
from pigeon_cli.training.data.sets import HANDS
from pigeon_cli.training.foretelling import drawn_table
from pigeon_cli.training.memory import kinship
from pigeon_cli.training.placed_drawings import INK, SIDE, PlacedDrawings, Sketch
from pigeon_cli.training.redrawings import Boxes, Redrawer, can_redraw, chosen_colours, fitting_box
from pigeon_cli.training.regions import lab
from pigeon_cli.training.substitutes import DrawnThings

CPU = choose_device("cpu")


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Forests of few trees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redrawings, "TREES", 10)
        yield


def placed_drawings(dataset: IconDataset) -> PlacedDrawings:
    batches = IconBatches(dataset, CPU.device)
    lines = outlines_of(dataset, batches.train)
    kin = kinship(batches.train, lines)
    table = drawn_table(batches.train, DrawnThings(batches, batches.train, lines, HANDS), kin)
    return PlacedDrawings(batches, table, kin)


@pytest.fixture(scope="module")
def placed(icons: Path) -> PlacedDrawings:
    return placed_drawings(load_dataset(icons))


def a_place(placed: PlacedDrawings) -> tuple[int, int, int]:
    """A thing, a hand with colours that drew it, and one whose drawing of it may be redrawn."""
    for hand in set(range(len(HANDS))) - INK:
        for thing in placed.drawn_by(hand).tolist():
            donors = placed.donors(thing, hand)
            if donors and donors[0] not in INK:
                return thing, hand, donors[0]
    raise AssertionError("no drawing has another beside it")


def face() -> Image.Image:
    """A yellow square with black eyes."""
    picture = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((8, 8, 55, 55), fill="yellow")
    for left in (18, 38):
        draw.rectangle((left, 20, left + 7, 27), fill="black")
    return picture


def test_a_sketch_tells_its_colours_and_leaves_paper_out() -> None:
    sketch = Sketch.of(face())
    assert sketch.labels.shape == (SIDE, SIDE)
    told = {tuple(sketch.colours[number].tolist()) for number in sketch.drawn}
    assert told == {(255, 255, 0), (0, 0, 0)}
    assert Sketch.of(Image.new("RGB", (64, 64), "white")).drawn == []


def test_donors_draw_other_lines_and_colours_come_first(placed: PlacedDrawings) -> None:
    seen = 0
    for hand in range(len(HANDS)):
        for thing in range(len(placed.rows)):
            donors = placed.donors(thing, hand)
            assert hand not in donors and not any(placed.siblings[donor, hand] for donor in donors)
            assert all(placed.rows[thing, donor] >= 0 for donor in donors)
            assert not INK.intersection(donors) or INK.issuperset(donors)
            nearness = [float(placed.kin[hand, donor]) for donor in donors]
            assert nearness == sorted(nearness, reverse=True)
            seen += len(donors)
    assert seen


def test_what_is_told_says_nothing_of_the_drawing_that_is_asked_for(icons: Path, placed: PlacedDrawings) -> None:
    dataset = load_dataset(icons)
    thing, hand, donor = a_place(placed)
    record = dataset.by_split["train"][int(placed.rows[thing, hand])]
    images = np.array(dataset.images)
    images[record.id] = 99
    other = placed_drawings(IconDataset(images, dataset.records))
    # Of lines too, by which other things are chosen as examples, nothing is known but by those that were drawn.
    other.examples[:] = placed.examples
    sketch = Sketch.of(placed.pictures[placed.rows[thing, donor]])
    told = [each.told_of_colours(sketch, thing, hand, donor) for each in (placed, other)]
    assert np.array_equal(*told, equal_nan=True) and len(told[0]) == len(sketch.drawn)
    assert np.array_equal(*(each.told_of_box(thing, hand) for each in (placed, other)), equal_nan=True)
    assert not np.array_equal(placed.colours[placed.rows[thing, hand]], other.colours[placed.rows[thing, hand]])


def test_answers_are_what_the_drawing_has_there(placed: PlacedDrawings) -> None:
    thing, hand, _ = a_place(placed)
    row = int(placed.rows[thing, hand])
    sketch = Sketch.of(placed.pictures[row])
    for place, colour, share in placed.answers(sketch, row):
        assert share > 0.9
        assert float(np.linalg.norm(colour - lab(sketch.colours[sketch.drawn[place]][None, None])[0, 0])) < 10


def test_likely_colours_are_chosen_but_contrasts_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = Sketch.of(face())
    palette = lab(np.array([[[250, 200, 60], [240, 190, 70], [20, 20, 30]]]))[0]
    yellow = [tuple(sketch.colours[number].tolist()) for number in sketch.drawn].index((255, 255, 0))
    likelihood = np.full((2, 3), 0.05)
    likelihood[:, 0] = 0.6
    chosen = chosen_colours(sketch, likelihood, palette)
    # Eyes on a face are told from it, however likely the face's colour is for both.
    assert chosen[yellow] == 0 and chosen[1 - yellow] == 2
    for each in ("CONTRAST", "LIGHT", "PALE"):
        monkeypatch.setattr(redrawings, each, 0.0)
    assert chosen_colours(sketch, likelihood, palette).tolist() == [0, 0]


def test_what_is_darker_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = Sketch.of(face())
    palette = lab(np.array([[[230, 160, 40], [160, 220, 255], [90, 40, 20]]]))[0]
    yellow = [tuple(sketch.colours[number].tolist()) for number in sketch.drawn].index((255, 255, 0))
    likelihood = np.full((2, 3), 0.1)
    likelihood[yellow, 0] = likelihood[1 - yellow, 1] = 0.8
    # Pale eyes would be told from the face as well.
    assert chosen_colours(sketch, likelihood, palette)[1 - yellow] == 2
    monkeypatch.setattr(redrawings, "LIGHT", 0.0)
    monkeypatch.setattr(redrawings, "PALE", 0.0)
    assert chosen_colours(sketch, likelihood, palette)[1 - yellow] == 1


def test_what_is_dark_does_not_get_light(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = Sketch(np.zeros((SIDE, SIDE), dtype=np.int64), np.array([[60, 40, 30]], dtype=np.uint8))
    palette = lab(np.array([[[250, 200, 60], [150, 90, 50], [20, 20, 20]]]))[0]
    likelihood = np.array([[0.6, 0.3, 0.1]])
    assert chosen_colours(sketch, likelihood, palette).tolist() == [1]
    monkeypatch.setattr(redrawings, "PALE", 0.0)
    assert chosen_colours(sketch, likelihood, palette).tolist() == [0]


def test_shades_of_one_colour_do_not_part() -> None:
    labels = np.zeros((SIDE, SIDE), dtype=np.int64)
    labels[:, SIDE // 2 :] = 1
    sketch = Sketch(labels, np.array([[200, 30, 30], [215, 40, 40]], dtype=np.uint8))
    palette = lab(np.array([[[40, 90, 200], [60, 100, 210], [250, 200, 60]]]))[0]
    likelihood = np.array([[0.9, 0.05, 0.05], [0.05, 0.15, 0.8]])
    assert chosen_colours(sketch, likelihood, palette).tolist() == [0, 1]


def test_a_hands_box_is_foretold_and_not_their_mean() -> None:
    boxes = np.array([[0.0, 1.0, 0.0, 1.0]] * 12 + [[0.2, 0.8, 0.1, 0.9]] * 8)
    told = np.concatenate([np.zeros((20, 3)), np.arange(20)[:, None] % 2], axis=1)
    assert Boxes(told, boxes)(told[0]).tolist() == [0.0, 1.0, 0.0, 1.0]
    told[12:, 0] = 5.0
    foretell = Boxes(told, boxes)
    assert foretell(told[15]).tolist() == [0.2, 0.8, 0.1, 0.9] and foretell(told[3]).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_a_box_is_taken_but_for_its_shape_and_the_borders() -> None:
    # The face is square: of a box twice as wide as high it keeps the area.
    top, bottom, left, right = fitting_box(face(), np.array([0.4, 0.6, 0.3, 0.7]))
    assert (right - left) / (bottom - top) == pytest.approx(1.5)
    assert (right - left) * (bottom - top) == pytest.approx(0.08)
    assert (top + bottom) / 2 == pytest.approx(0.5) and (left + right) / 2 == pytest.approx(0.5)
    assert fitting_box(face(), np.array([0.1, 0.6, 0.2, 0.7])) == pytest.approx((0.1, 0.6, 0.2, 0.7))
    edges = fitting_box(face(), np.array([-0.2, 1.2, 0.3, 1.7]))
    assert edges == pytest.approx((0.0, 1.0, 0.0, 1.0))


def test_a_redrawer_lays_on_its_hands_colours(placed: PlacedDrawings) -> None:
    thing, hand, donor = a_place(placed)
    redrawer = Redrawer(placed, hand)
    made = redrawer(thing, donor)
    assert made is not None and made.was.shape == made.becomes.shape == (PALETTE, 3)
    sketch = Sketch.of(placed.pictures[placed.rows[thing, donor]])
    known = {tuple(colour) for colour in redrawer.palette.tolist()}
    for number, colour in enumerate(sketch.colours.tolist()):
        assert made.was[number].tolist() == colour
        assert (tuple(made.becomes[number].tolist()) in known) is not bool(sketch.is_paper[number])
    top, bottom, left, right = made.box
    assert 0 <= top < bottom <= 1 and 0 <= left < right <= 1
    again = Redrawer(placed, hand)(thing, donor)
    assert again is not None and torch.equal(again.becomes, made.becomes) and again.box == made.box


def test_specks_go_with_the_colour_that_is_most_like_theirs(placed: PlacedDrawings) -> None:
    thing, hand, donor = a_place(placed)
    redrawer = Redrawer(placed, hand)
    row = int(placed.rows[thing, donor])
    whole = placed.pictures[row]
    speckled = Image.new("RGB", whole.size, "white")
    draw = ImageDraw.Draw(speckled)
    draw.rectangle((2, 2, 29, 29), fill=(200, 30, 30))
    draw.point((12, 12), fill=(120, 20, 20))
    placed.pictures[row] = speckled
    try:
        made = redrawer(thing, donor)
    finally:
        placed.pictures[row] = whole
    sketch = Sketch.of(speckled)
    assert made is not None and len(sketch.drawn) == 1 and (~sketch.is_paper).sum() == 2
    told = {tuple(made.becomes[number].tolist()) for number in (~sketch.is_paper).nonzero()[0]}
    assert told == {tuple(made.becomes[sketch.drawn[0]].tolist())}


def test_places_are_redrawn_where_another_hand_drew_them_in_colours(placed: PlacedDrawings) -> None:
    places = [(thing, hand) for thing in range(len(placed.rows)) for hand in range(len(HANDS))]
    places = [place for place in places if placed.rows[place] < 0][:40]
    found = redrawings.redrawings(placed, places)
    assert found
    for (thing, hand), each in found.items():
        donor = can_redraw(placed, thing, hand)
        assert donor is not None and donor not in INK and hand not in INK
        assert each.row == placed.rows[thing, donor]
    assert all(can_redraw(placed, *place) is not None for place in found)
