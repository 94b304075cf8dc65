"""Drawings that are known by heart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pigeon_cli.core.configs import MemoryConfig
from pigeon_cli.models.memory import Memory, from_patches, pack_indices, to_patches, unpack_indices
from pigeon_cli.models.outlines import CELLS
from pigeon_cli.weights.checkpoint import load_part, save_part
from tests.small_memory import small_memory


@pytest.mark.parametrize("levels", [1, 3, 4, 6, 17])
def test_indices_come_back_and_white_paper_takes_no_room(levels: int) -> None:
    indices = np.full((200, levels, 64), 9, dtype=np.uint8)
    indices[:, :, 30:40] = np.random.default_rng(0).integers(0, 256, (200, levels, 10))
    packed = pack_indices(indices)
    assert len(packed) < indices.nbytes / 4
    assert (unpack_indices(packed, levels, 64) == indices).all()


def test_patches_are_squares_in_reading_order_and_come_back() -> None:
    latents = torch.arange(2 * 3 * 4 * 4).float().reshape(2, 3, 4, 4)
    patches = to_patches(latents, 2)
    assert patches.shape == (2, 4, 12)
    assert patches[0, 1].tolist() == latents[0, :, :2, 2:].flatten().tolist()
    assert (from_patches(patches, 2) == latents).all()


def test_a_drawing_is_the_sum_of_an_entry_of_each_book(tmp_path: Path) -> None:
    indices = np.array([[[0, 1, 2, 3], [5, 5, 5, 6]], [[255, 0, 0, 0], [1, 2, 3, 4]]], dtype=np.uint8)
    packed = pack_indices(indices)
    memory = Memory(MemoryConfig(2, 2, 3, 4, 2, len(packed), 2, 1, 40, 3, 3))
    memory.packed.copy_(torch.frombuffer(bytearray(packed), dtype=torch.uint8))
    torch.manual_seed(0)
    memory.books.copy_(torch.randn(2, 256, 12).bfloat16())
    save_part(tmp_path / "memory.safetensors", memory.state_dict())
    again = Memory(memory.config)
    load_part(again, tmp_path / "memory.safetensors")
    latents = again.latents(1)
    assert (latents.shape, latents.dtype) == ((3, 4, 4), torch.float32)
    for patch, (first, second) in enumerate(zip([255, 0, 0, 0], [1, 2, 3, 4], strict=True)):
        wanted = memory.books[0, first] + memory.books[1, second]
        assert to_patches(latents[None], 2)[0, patch].tolist() == wanted.tolist()


def test_drawings_are_found_by_their_things() -> None:
    memory = small_memory(2, 1, [(0, 0), (1, 2), (1, 0)])
    assert memory.drawings_of(1) == [1, 2]


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
