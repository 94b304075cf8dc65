"""Positions of prompts, one after another and by place in the picture."""

from __future__ import annotations

from dataclasses import replace

import torch

from pigeon_cli.pipeline.positions import TEXT_ROOM, position_step, token_positions
from pigeon_cli.pipeline.prompt import DROPPED, REFERENCE_SLOT
from tests.tiny_model import STYLE_TOKENS, tiny_spec

SPEC = tiny_spec(300)
START, END, CODE = SPEC.vocabulary.image_start, SPEC.vocabulary.image_end, SPEC.vocabulary.first_code
SLOT = REFERENCE_SLOT


def positions(*ids: int) -> list[int]:
    row = torch.tensor([ids])
    return token_positions(row, torch.ones_like(row), SPEC)[0].tolist()


def test_the_same_place_of_all_pictures_and_of_the_reference_is_close() -> None:
    found = positions(START, CODE, DROPPED, END, 5, 6, SLOT, SLOT, SLOT, START, CODE, CODE)
    first = [TEXT_ROOM + 8 * place for place in range(4)]
    second = [TEXT_ROOM + 8 * place + 1 for place in range(3)]
    # The first slot stands where the first patch is predicted, after the style tokens.
    slots = [position + 8 * STYLE_TOKENS for position in second]
    assert found == [*first, TEXT_ROOM - 2, TEXT_ROOM - 1, *slots, *second]
    assert position_step(SPEC) == 8


def test_a_slot_stands_at_the_first_place_of_its_block() -> None:
    row = torch.tensor([[SLOT] * 4 + [START]])
    placed = token_positions(row, torch.ones_like(row), replace(SPEC, reference_slots=4))[0].tolist()
    corners = [STYLE_TOKENS + place for place in (0, 2, 8, 10)]
    assert placed == [TEXT_ROOM + 8 * place for place in (*corners, 0)]


def test_long_texts_end_before_the_first_place() -> None:
    found = positions(*[5] * (TEXT_ROOM + 3), START, CODE)
    assert found == [0, 0, 0, *range(TEXT_ROOM), TEXT_ROOM, TEXT_ROOM + 8]


def test_padding_on_the_left_takes_no_positions() -> None:
    ids = torch.tensor([[2, 2, 5, SLOT, SLOT, START]])
    attention = torch.tensor([[0, 0, 1, 1, 1, 1]])
    placed = token_positions(ids, attention, SPEC)[0, 2:].tolist()
    first = TEXT_ROOM + 8 * STYLE_TOKENS
    assert placed == [TEXT_ROOM - 1, first, first + 8, TEXT_ROOM]
    assert token_positions(ids, attention, replace(SPEC, place_stride=0))[0, 2:].tolist() == [0, 1, 2, 3]
