"""What a small model knows by heart: drawings as codes, each of one thing by one hand, and how to find them.

A large model has seen so much that it knows how a thing is drawn in another manner than the reference's; what a small
one guesses of that nobody recognises. So ``mini`` keeps its training drawings, and what tells their things and hands
(released weights have no memory).
"""

from __future__ import annotations

import lzma
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import MemoryConfig
from pigeon_cli.models.outlines import CELLS

_KEY_SCALE: Final = 127.0
_FILTERS: Final[list[dict[str, Any]]] = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lp": 1, "lc": 0}]
"""For numbers of two bytes."""


class Memory(nn.Module):
    """Drawings of *things*, numbered as in the list of their names, by *hands*, which here are icon sets."""

    packed: Tensor
    """uint8 [packed_bytes]: :func:`pack_codes` of all drawings."""
    things: Tensor
    """int16 [drawings]."""
    hands: Tensor
    """uint8 [drawings]."""
    keys: Tensor
    """int8 [keys, key_width]: outlines of everything that was seen in training, to recognise a reference by."""
    key_things: Tensor
    """int16 [keys]."""
    centre: Tensor
    """[CELLS]: the mean of all outlines."""
    kinship: Tensor
    """[hands, hands]: how far two hands draw the same lines, as mean agreement of their outlines; 1 with themselves."""
    tastes: Tensor
    """[hands, taste_width]: of plain drawings."""
    styles: Tensor
    """int16 [hands, style_tokens]: codes of the style tokens of a hand's most typical plain drawing."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("packed", torch.zeros(config.packed_bytes, dtype=torch.uint8))
        self.register_buffer("things", torch.zeros(config.drawings, dtype=torch.int16))
        self.register_buffer("hands", torch.zeros(config.drawings, dtype=torch.uint8))
        self.register_buffer("keys", torch.zeros(config.keys, config.key_width, dtype=torch.int8))
        self.register_buffer("key_things", torch.zeros(config.keys, dtype=torch.int16))
        self.register_buffer("centre", torch.zeros(CELLS))
        self.register_buffer("kinship", torch.eye(config.hands))
        self.register_buffer("tastes", torch.zeros(config.hands, config.taste_width))
        self.register_buffer("styles", torch.zeros(config.hands, config.style_tokens, dtype=torch.int16))
        self.projection = nn.Linear(CELLS, config.key_width, bias=False)
        self.tells_hand = nn.Linear(config.taste_width, config.hands)

    def codes(self, drawing: int) -> tuple[int, ...]:
        """Codes of one drawing without the padding."""
        whole = unpack_codes(self.packed.cpu().numpy().tobytes(), self.config.tokens)
        return tuple(code for code in whole[drawing].tolist() if code >= 0)

    def key_of(self, lines: Tensor) -> Tensor:
        """Outlines [..., CELLS] to unit vectors [..., key_width] in float32."""
        weight = self.projection.weight.float()
        return functional.normalize((lines.float() - self.centre.float()) @ weight.T, dim=-1)

    def learn_keys(self, lines: Tensor) -> None:
        """Keep outlines [keys, CELLS] as keys."""
        keys = self.key_of(lines).detach()
        self.keys.copy_((keys / keys.abs().amax(1, keepdim=True).clamp_min(1e-6) * _KEY_SCALE).round())

    def recognise(self, lines: Tensor) -> Tensor:
        """For outlines [CELLS] of a picture the best cosine with a key of every thing, float32 [things]."""
        cosines = functional.normalize(self.keys.float(), dim=-1) @ self.key_of(lines)
        best = cosines.new_full((self.config.things,), -1.0)
        return best.scatter_reduce_(0, self.key_things.long(), cosines, "amax")

    def hand_of(self, taste: Tensor) -> Tensor:
        """Probabilities of the hands for a history's taste [taste_width], float32 [hands]."""
        return torch.softmax(self.tells_hand(taste.to(self.tells_hand.weight)).float(), dim=-1)

    def nearness(self, taste: Tensor) -> Tensor:
        """How near every hand is to a history's taste [taste_width]: the expected kinship, float32 [hands]."""
        return self.hand_of(taste) @ self.kinship.float()

    def drawings_of(self, thing: int) -> list[int]:
        """Numbers of the drawings of one thing."""
        found: list[int] = (self.things == thing).nonzero()[:, 0].tolist()
        return found


def pack_codes(codes: NDArray[np.int16]) -> bytes:
    """Codes [drawings, tokens] as one LZMA stream, half as large as packed bits: drawings share much white paper."""
    return lzma.compress(codes.astype("<i2").tobytes(), lzma.FORMAT_RAW, filters=_FILTERS)


def unpack_codes(packed: bytes, tokens: int) -> NDArray[np.int16]:
    """The inverse of :func:`pack_codes`."""
    raw = lzma.decompress(packed, lzma.FORMAT_RAW, filters=_FILTERS)
    return np.frombuffer(raw, dtype="<i2").reshape(-1, tokens).astype(np.int16)
