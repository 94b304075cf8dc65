"""Another hand's drawing where, as large as and in the colours in which it should have been drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pigeon_cli.models.memory import Memory
from pigeon_cli.models.redrawing import PALETTE, Redrawing, drawn_box, redrawn, settled
from pigeon_cli.models.small_pictures import as_pixels, pack_picture
from tests.small_memory import small_memory


def colours(*some: tuple[int, int, int]) -> Tensor:
    """These and white."""
    return torch.tensor([*some, *[(255, 255, 255)] * (PALETTE - len(some))], dtype=torch.uint8)


def flag() -> Image.Image:
    """A red square with a blue one in its middle, 40 pixels across."""
    picture = Image.new("RGB", (128, 128), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((10, 20, 49, 59), fill="red")
    draw.rectangle((20, 30, 39, 49), fill="blue")
    return picture


def test_the_box_is_of_what_is_drawn() -> None:
    assert drawn_box(flag()) == (20, 60, 10, 50)
    assert drawn_box(Image.new("RGB", (64, 32), "white")) == (0, 32, 0, 64)


def test_what_is_drawn_moves_grows_and_takes_the_other_colours() -> None:
    was = colours((255, 0, 0), (0, 0, 255))
    becomes = colours((0, 128, 0), (255, 200, 0))
    made = redrawn(flag(), Redrawing((0.25, 0.875, 0.125, 0.75), was, becomes))
    assert made.size == (128, 128) and drawn_box(made) == (32, 112, 16, 96)
    assert made.getpixel((20, 36)) == (0, 128, 0) and made.getpixel((56, 72)) == (255, 200, 0)
    assert made.getpixel((4, 4)) == (255, 255, 255)


def test_half_of_the_shading_stays() -> None:
    shaded = np.array(flag())
    shaded[30:50, 20:40] = (0, 0, 231)
    becomes = colours((255, 0, 0), (0, 100, 200))
    box = tuple(edge / 128 for edge in drawn_box(flag()))
    assert len(box) == 4
    made = redrawn(Image.fromarray(shaded), Redrawing(box, colours((255, 0, 0), (0, 0, 255)), becomes))
    assert made.getpixel((30, 40)) == (0, 100, 188)


def test_a_blank_picture_stays_blank() -> None:
    blank = Image.new("RGB", (128, 128), "white")
    assert redrawn(blank, Redrawing((0.1, 0.9, 0.1, 0.9), colours((0, 0, 0)), colours((255, 0, 0)))) == blank


def test_a_rough_picture_settles_on_its_drawings_colours() -> None:
    generator = np.random.default_rng(0)
    rough = np.clip(np.array(flag()) + generator.normal(0, 30, (128, 128, 3)), 0, 255).astype(np.uint8)
    rough[5, 5] = rough[40, 30] = (250, 10, 10)
    assert drawn_box(Image.fromarray(rough)) != drawn_box(flag())
    made = settled(Image.fromarray(rough), Redrawing((0, 1, 0, 1), colours((255, 0, 0), (0, 0, 255)), colours()))
    assert made.size == (256, 256)
    back = made.resize((128, 128), Image.Resampling.NEAREST)
    # Corners are rounded, where most pixels around are the other's.
    differs = (np.array(back) != np.array(flag())).any(2)
    assert differs.sum() < 60 and drawn_box(back) == drawn_box(flag())
    assert back.getpixel((5, 5)) == (255, 255, 255) and back.getpixel((30, 40)) == (0, 0, 255)


@pytest.fixture
def memory() -> Memory:
    redrawing = Redrawing((0.0, 1.0, 0.2, 0.8), colours((255, 0, 0)), colours((0, 128, 0)))
    sketch = pack_picture(as_pixels(flag()), PALETTE)
    return small_memory(2, 1, [(0, 0), (1, 1)], redrawn={(1, 2): (1, redrawing)}, sketches={1: sketch})


def test_a_memory_keeps_what_becomes_of_drawings(memory: Memory) -> None:
    kept = memory.redrawing(1, 2)
    assert kept is not None and kept[0] == 1
    assert kept[1].box == pytest.approx((0.0, 1.0, 0.2, 0.8), abs=1 / 255)
    assert torch.equal(kept[1].was, colours((255, 0, 0))) and torch.equal(kept[1].becomes, colours((0, 128, 0)))
    assert memory.redrawing(1, 0) is None and memory.redrawing(0, 2) is None


def test_a_memory_keeps_sketches_beside_drawings(memory: Memory) -> None:
    sketch = memory.sketch(1)
    assert sketch is not None and np.array_equal(np.array(sketch), np.array(flag()))
    assert memory.sketch(0) is None and memory.picture(1) is None
