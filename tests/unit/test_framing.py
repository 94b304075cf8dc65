"""A reference gets as much margin as the liked images have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pigeon_cli.core.records import Framing
from pigeon_cli.history.framing import filled_share, framed_like
from pigeon_cli.history.pose import has_paper, turned, turned_by
from pigeon_cli.pipeline.asked import Asked
from tests.tiny_model import tiny_spec

PAPER = (250, 240, 230)


def drawing(share: float, size: tuple[int, int] = (256, 256)) -> Image.Image:
    """A blue rectangle in the middle, on ``share`` of either side."""
    image = Image.new("RGB", size, PAPER)
    width, height = (round(side * share) for side in size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    ImageDraw.Draw(image).rectangle((left, top, left + width - 1, top + height - 1), fill=(20, 40, 160))
    return image


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("size", [(256, 256), (400, 100)])
def test_the_share_of_the_frame_that_is_drawn_on(share: float, size: tuple[int, int]) -> None:
    assert filled_share(drawing(share, size)) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("size", [(400, 100), (100, 400), (4000, 60)])
def test_nothing_of_a_long_reference_is_cut_off_when_it_is_turned(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, PAPER)
    ImageDraw.Draw(image).ellipse((0, 0, size[0] - 1, size[1] - 1), fill=(20, 40, 160))
    framed, framing = framed_like(image, [drawing(1.0)], degrees=36)
    assert framing.degrees == 36 and framed.width == framed.height <= 1024
    assert filled_share(framed) == pytest.approx(framing.scale, abs=0.03)


def test_paper_alone_is_not_drawn_on() -> None:
    assert filled_share(Image.new("RGB", (64, 64), PAPER)) == 0


def test_a_reference_is_made_as_small_as_is_usual() -> None:
    history = [drawing(0.5), drawing(0.5), drawing(1.0)]
    framed, framing = framed_like(drawing(0.9, (300, 200)), history)
    assert framed.size == (300, 200)
    assert framing.scale == pytest.approx(0.5 / 0.9, abs=0.03)
    assert framing.degrees == 0
    assert filled_share(framed) == pytest.approx(0.5, abs=0.03)
    assert framed.getpixel((0, 0)) == PAPER
    assert framed.getpixel((150, 100)) == (20, 40, 160)


def test_a_reference_without_paper_gets_white_paper() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    framed, framing = framed_like(noise, [drawing(0.5)])
    assert framing.scale == pytest.approx(0.5, abs=0.03)
    assert framed.getpixel((2, 2)) == (255, 255, 255) and filled_share(framed) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("own", "usual"), [(0.5, 0.9), (0.6, 0.6), (0.6, 0.59)])
def test_it_is_never_made_larger_and_not_for_little(own: float, usual: float) -> None:
    reference = drawing(own)
    framed, framing = framed_like(reference, [drawing(usual)])
    assert framed is reference
    assert framing == Framing()


@pytest.mark.parametrize("blank", [0, 1])
def test_where_nothing_is_drawn_nothing_is_moved(blank: int) -> None:
    images = [drawing(0.9), drawing(0.3)]
    images[blank] = Image.new("RGB", (64, 64), PAPER)
    assert framed_like(images[0], images[1:]) == (images[0], Framing())


def test_only_a_model_that_is_made_for_it_reads_a_framed_reference() -> None:
    spec = tiny_spec(300)
    asked = Asked([drawing(0.5)], drawing(0.95), "", ())
    assert asked.framed(replace(spec, frame_reference=False)) is asked
    framed = asked.framed(replace(spec, frame_reference=True))
    assert framed.framing.scale == pytest.approx(0.5 / 0.95, abs=0.03)
    assert framed.reference is not None and framed.reference is not asked.reference
    words = Asked([drawing(0.5)], None, "red fox", ())
    assert words.framed(replace(spec, frame_reference=True)) is words


def face(tilt: int, size: int = 128, seed: int = 0) -> Image.Image:
    """A round face whose halves are mirror images, turned clockwise; ``seed`` moves eyes and mouth."""
    image = Image.new("RGB", (size, size), (255, 255, 255))
    pen, middle = ImageDraw.Draw(image), size // 2
    pen.ellipse((12, 12, size - 13, size - 13), fill=(250, 200, 60))
    for side in (-1, 1):
        left = middle + side * (16 + 3 * seed) - 6
        pen.ellipse((left, 40, left + 12, 56), fill=(60, 40, 30))
    pen.rectangle((middle - 24, 80 + seed, middle + 23, 88 + seed), fill=(60, 40, 30))
    return turned(image, tilt)


@pytest.mark.parametrize("degrees", [-28, -16, 16, 32])
def test_a_history_shows_how_far_it_is_turned(degrees: int) -> None:
    history = [face(degrees, seed=seed) for seed in range(5)]
    assert turned_by(history) == pytest.approx(degrees, abs=4)


def test_an_upright_history_is_not_turned_and_neither_is_one_that_disagrees() -> None:
    assert turned_by([face(0, seed=seed) for seed in range(5)]) == 0
    assert turned_by([face(20), face(0), face(0), face(-20), face(0)]) == 0
    assert turned_by([Image.new("RGB", (32, 32), PAPER)] * 3) == 0


def test_what_is_not_on_paper_does_not_show_how_far_it_is_turned() -> None:
    rng = np.random.default_rng(0)
    history = [face(24, seed=seed) for seed in range(5)]
    assert all(map(has_paper, history)) and turned_by(history)
    scenes = []
    for image in history:
        values = np.asarray(image).astype(int)
        paper = values.min(axis=2, keepdims=True) > 250
        values = np.where(paper, rng.integers(150, 256, values.shape), values)
        scenes.append(Image.fromarray(values.astype(np.uint8)))
    assert not any(map(has_paper, scenes)) and turned_by(scenes) == 0
    # Most of them must be.
    assert turned_by([*history[:4], scenes[4]]) and not turned_by([*history[:3], *scenes[3:]])


def test_a_reference_is_turned_as_the_history_is() -> None:
    framed, framing = framed_like(face(0), [face(24, seed=seed) for seed in range(5)])
    assert framing.degrees == pytest.approx(24, abs=4)
    assert 0.85 < framing.scale <= 0.94
    assert turned_by([framed]) == pytest.approx(24, abs=4)


def test_what_is_known_of_how_it_is_turned_need_not_be_looked_for() -> None:
    square = drawing(0.6)
    framed, framing = framed_like(square, [square], 20)
    assert framing.degrees == 20
    assert framed.getpixel((128, 128)) == (20, 40, 160)
    asked = Asked([square], square, "", (), turned=20).framed(replace(tiny_spec(320), frame_reference=True))
    assert asked.framing == framing
