"""Drawings that a model knows by heart, as codes (``mini``; released weights draw from words well enough)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pigeon_cli.core.configs import MemoryConfig


class Memory(nn.Module):
    """One plain drawing per meaning; :mod:`pigeon_cli.pipeline.recall` finds them by words."""

    codes: Tensor
    """int16 [drawings, tokens], -1 as padding on the right."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        empty = torch.full((config.drawings, config.tokens), -1, dtype=torch.int16)
        self.register_buffer("codes", empty)

    def drawing(self, number: int) -> tuple[int, ...]:
        """Codes of one drawing without the padding."""
        return tuple(code for code in self.codes[number].tolist() if code >= 0)
