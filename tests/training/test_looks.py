"""Looks: drawn from the right kinds, written and read, applied alike to a batch and to single images."""

from __future__ import annotations

import json
import random

import pytest
import torch

from pigeon_cli.core.errors import InputError
from pigeon_cli.training.data.looks import (
    HELD_OUT_KINDS,
    KINDS,
    PLAIN,
    TRAIN_KINDS,
    Look,
    apply_look,
    apply_looks,
    draw_look,
)

SIZE = 64


@pytest.fixture
def pictures() -> torch.Tensor:
    """uint8 [3, 4, 64, 64]: shaded, off-centre shapes on transparency, with loud colours where nothing is seen."""
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    images = []
    for number in range(3):
        inside = (rows - 28).abs() + (columns - 34 + 4 * number).abs() < 22
        shade = (60 + 2 * rows + 10 * number).clamp(0, 255)
        image = torch.stack([shade, 255 - shade, torch.full_like(shade, 80), inside * 255])
        image[:3, ~inside] = torch.tensor([255, 0, 255])[:, None]
        images.append(image.to(torch.uint8))
    return torch.stack(images)


def _single(kind: str, seed: int = 0) -> Look:
    generator = random.Random(seed)
    while True:
        look = draw_look(generator, [kind])
        if look.kinds == (kind,):
            return look


def test_twelve_kinds_of_which_two_are_held_out() -> None:
    assert len(set(KINDS)) == 12
    assert set(HELD_OUT_KINDS) == {"duotone", "outline"}
    assert set(TRAIN_KINDS) == set(KINDS) - set(HELD_OUT_KINDS)


def test_training_draws_every_trained_kind_and_no_other() -> None:
    generator = random.Random(1)
    looks = [draw_look(generator) for _ in range(2000)]
    assert {kind for look in looks for kind in look.kinds} == set(TRAIN_KINDS)
    assert {len(look.parts) for look in looks} == {0, 1, 2}
    assert all(len(set(look.kinds)) == len(look.kinds) for look in looks)
    assert not any(look.is_held_out for look in looks)


def test_held_out_draws_are_held_out() -> None:
    generator = random.Random(1)
    looks = [draw_look(generator, HELD_OUT_KINDS) for _ in range(100)]
    assert all(look.is_held_out and len(look.parts) == 1 for look in looks)
    assert {kind for look in looks for kind in look.kinds} == set(HELD_OUT_KINDS)


def test_monochrome_draws_leave_out_what_black_cannot_show() -> None:
    generator = random.Random(1)
    kinds = {kind for _ in range(1000) for kind in draw_look(generator, monochrome=True).kinds}
    assert kinds == set(TRAIN_KINDS) - {"hue", "posterise"}


def test_same_seed_same_looks() -> None:
    first, second = random.Random(5), random.Random(5)
    assert [draw_look(first) for _ in range(50)] == [draw_look(second) for _ in range(50)]


def test_json_round_trip() -> None:
    generator = random.Random(2)
    for kinds in (TRAIN_KINDS, HELD_OUT_KINDS):
        for _ in range(200):
            look = draw_look(generator, kinds)
            assert Look.from_json(json.loads(json.dumps(look.to_json()))) == look


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="sepia"):
        Look.from_json({"parts": [{"kind": "sepia"}]})


def test_plain_is_composition_over_white(pictures: torch.Tensor) -> None:
    pixels = pictures.float() / 255
    expected = pixels[:, :3] * pixels[:, 3:] + 1 - pixels[:, 3:]
    torch.testing.assert_close(apply_look(PLAIN, pictures), expected)
    torch.testing.assert_close(apply_look(PLAIN, pixels), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_visible_and_in_range(kind: str, pictures: torch.Tensor) -> None:
    for seed in range(5):
        shown = apply_look(_single(kind, seed), pictures)
        assert shown.shape == (3, 3, SIZE, SIZE)
        assert shown.dtype == torch.float32
        assert float(shown.min()) >= 0
        assert float(shown.max()) <= 1
        assert float((shown - apply_look(PLAIN, pictures)).abs().mean()) > 0.005


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "background"])
def test_colours_of_invisible_pixels_never_show(kind: str, pictures: torch.Tensor) -> None:
    clean = pictures.clone()
    clean[:, :3] = torch.where(pictures[:, 3:] == 0, torch.zeros_like(pictures[:, :3]), pictures[:, :3])
    look = _single(kind)
    torch.testing.assert_close(apply_look(look, pictures), apply_look(look, clean))


def test_background_stays_behind_the_drawing(pictures: torch.Tensor) -> None:
    shown, plain = apply_look(_single("background"), pictures), apply_look(PLAIN, pictures)
    inside = (pictures[:, 3:] == 255).expand_as(shown)
    torch.testing.assert_close(shown[inside], plain[inside])
    assert bool(((shown - 1).abs().amax(dim=1, keepdim=True)[pictures[:, 3:] == 0] > 0.01).all())


def test_hue_of_a_full_turn_changes_nothing(pictures: torch.Tensor) -> None:
    look = Look.from_json({"parts": [{"kind": "hue", "degrees": 360.0, "saturation": 1.0}]})
    torch.testing.assert_close(apply_look(look, pictures), apply_look(PLAIN, pictures), atol=1e-5, rtol=0)


def test_tilt_turns_clockwise() -> None:
    image = torch.zeros(1, 4, SIZE, SIZE)
    image[:, 3, 4:12, 28:36] = 1
    look = Look.from_json({"parts": [{"kind": "tilt", "degrees": 90.0}]})
    dark = 1 - apply_look(look, image)[0, 0]
    assert float(dark[:, SIZE // 2 :].sum()) > 0.95 * float(dark.sum())
    assert int(dark.sum(dim=0).argmax()) > 50


def test_blur_keeps_the_amount_of_ink(pictures: torch.Tensor) -> None:
    look = Look.from_json({"parts": [{"kind": "softness", "radius": 0.02}]})
    shown, plain = apply_look(look, pictures), apply_look(PLAIN, pictures)
    torch.testing.assert_close((1 - shown).sum(), (1 - plain).sum(), rtol=1e-3, atol=0)


def test_looks_per_image_equal_one_at_a_time(pictures: torch.Tensor) -> None:
    looks = [_single("tilt"), PLAIN, _single("tilt")]
    together = apply_looks(looks, pictures)
    for number, look in enumerate(looks):
        alone = apply_look(look, pictures[number : number + 1])[0]
        torch.testing.assert_close(together[number], alone, atol=1e-6, rtol=0)


def test_one_look_per_image_is_demanded(pictures: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="2 looks for 3 images"):
        apply_looks([PLAIN, PLAIN], pictures)
