"""Drawings that are known by heart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

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
    latents = again.latents([1, 0])
    assert (latents.shape, latents.dtype) == ((2, 3, 4, 4), torch.float32)
    for patch, (first, second) in enumerate(zip([255, 0, 0, 0], [1, 2, 3, 4], strict=True)):
        wanted = memory.books[0, first] + memory.books[1, second]
        assert to_patches(latents, 2)[0, patch].tolist() == wanted.tolist()


def test_drawings_are_found_by_their_things() -> None:
    memory = small_memory(2, 1, [(0, 0), (1, 2), (1, 0)])
    assert memory.drawings_of(1) == [1, 2]


def knowing_lines() -> tuple[Memory, Tensor]:
    """A memory of drawings of things 0 and 2, and the outlines of the second, the first and the third of them."""
    memory = small_memory(3, 3, [(0, 0), (2, 0), (2, 1)])
    torch.manual_seed(0)
    lines = torch.randn(3, CELLS)
    memory.learn_keys(lines)
    memory.key_drawings.copy_(torch.tensor([1, 0, 2]))
    return memory, lines


def test_a_thing_is_known_by_the_nearest_of_its_pictures() -> None:
    memory, lines = knowing_lines()
    agreement = memory.recognise(lines[2])
    assert agreement[2] == pytest.approx(1, abs=1e-3)
    assert agreement[0] < 0.9
    # A thing without a picture agrees with nothing.
    assert agreement[1] == -1


def test_pictures_are_taken_for_the_drawings_with_their_lines() -> None:
    memory, lines = knowing_lines()
    drawings, agreement = memory.alike(lines[[2, 0]])
    assert drawings.tolist() == [2, 1]
    assert agreement.tolist() == pytest.approx([1, 1], abs=1e-3)


def test_a_hand_is_told_by_the_taste_and_by_the_lines_of_its_drawings() -> None:
    memory = small_memory(2, 3, [(0, 0), (0, 1), (1, 2)])
    torch.manual_seed(0)
    lines = torch.randn(3, CELLS)
    with torch.no_grad():
        torch.nn.init.orthogonal_(memory.projection.weight)
        memory.tells_hand.weight.copy_(torch.eye(3))
        memory.tells_hand.bias.zero_()
    memory.key_drawings.copy_(torch.arange(3))
    first, nothing = torch.tensor([2.0, 0.0, 0.0]), torch.zeros(3)
    # Lines that every hand has leave what the taste says.
    memory.learn_keys(lines[:1].expand(3, -1))
    assert memory.hand_of(first, lines[:1]).tolist() == pytest.approx(torch.softmax(first, 0).tolist(), abs=1e-4)
    memory.learn_keys(lines)
    for hand in range(3):
        once, twice = (memory.hand_of(nothing, lines[[hand] * count]) for count in (1, 2))
        assert int(once.argmax()) == hand and float(once.sum()) == pytest.approx(1)
        assert float(twice[hand]) > float(once[hand])
    # Two pictures with the second hand's lines outweigh a taste for the first.
    assert int(memory.hand_of(first, lines[[1, 1]]).argmax()) == 1


def test_hands_are_near_by_their_kinship() -> None:
    memory = small_memory(1, 1, [(0, 0)])
    memory.kinship[0, 1] = memory.kinship[1, 0] = 0.8
    assert memory.nearness(torch.tensor([0.5, 0.25, 0.25])).tolist() == pytest.approx([0.7, 0.65, 0.25])
