"""A memory of a few drawings, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pigeon_cli.core.configs import MemoryConfig
from pigeon_cli.models.memory import Memory, pack_codes


def small_memory(
    things: int,
    keys: int,
    drawings: Sequence[tuple[int, int]],
    codes: Sequence[Sequence[int]] = (),
    tokens: int = 4,
    hands: int = 3,
    taste_width: int = 3,
    style_tokens: int = 0,
) -> Memory:
    """A memory of ``drawings``, each a thing and a hand, with ``codes`` (by default none); it recognises nothing."""
    table = np.full((len(drawings), tokens), -1, dtype=np.int16)
    for row, known in enumerate(codes):
        table[row, : len(known)] = known
    packed = pack_codes(table)
    memory = Memory(
        MemoryConfig(len(drawings), tokens, len(packed), things, keys, 40, hands, taste_width, style_tokens)
    )
    memory.packed.copy_(torch.frombuffer(bytearray(packed), dtype=torch.uint8))
    memory.things.copy_(torch.tensor([thing for thing, _ in drawings]))
    memory.hands.copy_(torch.tensor([hand for _, hand in drawings]))
    return memory.requires_grad_(False)
