"""The look of a history whose plain drawings a memory knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pigeon_cli.models.memory import Memory
from pigeon_cli.models.outlines import outlines
from pigeon_cli.models.worn_look import WornLook
from pigeon_cli.pipeline import looks
from pigeon_cli.training.data.looks import Look, apply_look
from tests.small_memory import knowing
from tests.tiny_drawings import on_white, tiny_drawings

HAND, OTHER_HAND = 0, 1
TINT = Look.from_json({"parts": [{"kind": "tint", "colour": [0.9, 0.3, 0.2], "strength": 0.6}]})
OUTLINE = Look.from_json({"parts": [{"kind": "outline", "colour": [0.2, 0.1, 0.9], "width": 0.05}]})


class NoParts:
    """Parts of which nothing is asked."""

    @contextmanager
    def use(self, part: object) -> Iterator[None]:
        yield None


def images(pictures: Tensor) -> list[Image.Image]:
    return [Image.fromarray(np.array((each * 255).round().byte().permute(1, 2, 0))) for each in pictures]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Of eight drawings by one hand, whose latents are their numbers and are decoded by these."""
    plain = on_white(tiny_drawings(8))
    made = knowing(plain)
    monkeypatch.setattr(made, "latents", lambda drawings: torch.tensor(drawings))

    def decode(vae: object, latents: Tensor, at_once: int) -> Sequence[Image.Image]:
        return images(plain[latents])

    monkeypatch.setattr(looks, "to_images", decode)
    return made


def read(memory: Memory, look: Look, hand: int = HAND, count: int = 4) -> WornLook | None:
    history = looks.pixels_of(images(apply_look(look, tiny_drawings(8)[:count])))
    lines = outlines(looks.pixels_of(images(on_white(tiny_drawings(8)[:count]))))
    return looks.look_of(cast(Any, NoParts()), memory, history, lines, hand)


def test_a_look_is_read_off_known_drawings(memory: Memory) -> None:
    look = read(memory, TINT)
    assert look is not None and look.error < 0.05 and look.record().error == round(look.error, 4)


def test_nothing_is_read_where_the_hand_did_not_draw_them(memory: Memory) -> None:
    assert read(memory, TINT, OTHER_HAND) is None


def test_a_look_that_explains_little_is_not_taken(memory: Memory) -> None:
    assert read(memory, OUTLINE) is None


def test_few_of_many_pictures_are_enough(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(memory, "latents", lambda drawings: asked.extend(drawings) or torch.tensor(drawings))
    monkeypatch.setattr(looks, "MOST_PICTURES", 3)
    assert read(memory, TINT, count=6) is not None
    assert len(asked) == 3 and asked == sorted(asked)
