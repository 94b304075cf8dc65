"""Drawings that are known by heart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pigeon_cli.models.memory import Memory, pack_codes, unpack_codes
from pigeon_cli.models.outlines import CELLS
from pigeon_cli.weights.checkpoint import load_part, save_part
from tests.small_memory import small_memory


def test_codes_come_back_and_take_less_room_than_they_did() -> None:
    codes = np.full((200, 72), 9, dtype=np.int16)
    codes[:, 30:40] = np.random.default_rng(0).integers(0, 2560, (200, 10))
    packed = pack_codes(codes)
    assert len(packed) < codes.nbytes / 3
    assert (unpack_codes(packed, 72) == codes).all()


def test_a_drawing_comes_back_from_its_file_without_padding(tmp_path: Path) -> None:
    memory = small_memory(2, 1, [(0, 0), (1, 2), (1, 0)], [(7, 8, 2559, 0), (5,), (1, 2)])
    save_part(tmp_path / "memory.safetensors", memory.state_dict())
    again = Memory(memory.config)
    load_part(again, tmp_path / "memory.safetensors")
    assert [again.codes(number) for number in range(3)] == [(7, 8, 2559, 0), (5,), (1, 2)]
    assert again.drawings_of(1) == [1, 2]


def test_a_thing_is_known_by_the_nearest_of_its_pictures() -> None:
    memory = small_memory(3, 3, [(0, 0)])
    torch.manual_seed(0)
    lines = torch.randn(3, CELLS)
    memory.learn_keys(lines)
    memory.key_things.copy_(torch.tensor([2, 0, 2]))
    agreement = memory.recognise(lines[2])
    assert agreement[2] == pytest.approx(1, abs=1e-3)
    assert agreement[0] < 0.9
    # A thing without a picture agrees with nothing.
    assert agreement[1] == -1


def test_hands_are_near_by_what_the_taste_says_and_by_their_kinship() -> None:
    memory = small_memory(1, 1, [(0, 0)])
    memory.kinship[0, 1] = memory.kinship[1, 0] = 0.8
    with torch.no_grad():
        memory.tells_hand.weight.zero_()
        memory.tells_hand.bias.copy_(torch.tensor([0.5, 0.25, 0.25]).log())
    assert memory.nearness(torch.zeros(3)).tolist() == pytest.approx([0.7, 0.65, 0.25])
