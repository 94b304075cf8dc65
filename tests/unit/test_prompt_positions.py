"""Positions of prompts whose reference slots stand beside the answer."""

from __future__ import annotations

import torch

from pigeon_cli.pipeline.prompt import REFERENCE_SLOT, token_positions


def test_slots_share_the_positions_from_which_codes_are_predicted() -> None:
    slot = REFERENCE_SLOT
    ids = torch.tensor([[5, 6, slot, slot, slot, 9, 7, 7, 7, 8, slot, slot, slot, 9, 7]])
    positions = token_positions(ids, torch.ones_like(ids), shared=True)
    assert positions.tolist() == [[0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7, 8, 9, 7, 8]]


def test_padding_on_the_left_takes_no_positions() -> None:
    ids = torch.tensor([[2, 2, 5, REFERENCE_SLOT, REFERENCE_SLOT, 9]])
    attention = torch.tensor([[0, 0, 1, 1, 1, 1]])
    assert token_positions(ids, attention, shared=True)[0, 2:].tolist() == [0, 1, 2, 1]
    assert token_positions(ids, attention, shared=False)[0, 2:].tolist() == [0, 1, 2, 3]
