"""How the stages write the parts of a model folder, which is shipped: small, where that changes nothing to be seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from pigeon_cli.weights.checkpoint import save_part
from pigeon_cli.weights.packed import EIGHT, SIX
from pigeon_cli.weights.store import ModelFolder

PACKED: Final = frozenset(
    {"unet", "vae", "tokenizer", "decoder", "translator", "language", "scorer", "mask_generator", "taste"}
)
"""Parts whose large matrices are written as int8; the others are small as they are."""
BITS: Final = {"unet": SIX}
"""Of parts whose largest matrices are smaller still."""
EXACT: Final = {"tokenizer": frozenset({"quantizer.embedding.weight", "task_layer.0.weight"})}
"""Matrices of packed parts that are not: the codebook, whose rows are told apart by nearness, and the layer before it.
Of all codes 6 % change with that layer as int8, less than 1 % with all others."""
_TYPES: Final = {"tokenizer": torch.float16, "decoder": torch.float16}


def save_shipped(folder: ModelFolder, part: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a part's weights; floating tensors that are not packed in bfloat16, or float16 where codes hang on them.

    Raises :class:`OutputError`.
    """
    dtype = _TYPES.get(part, torch.bfloat16)
    exact, bits = EXACT.get(part, frozenset()), BITS.get(part, EIGHT)
    save_part(folder.part(part), tensors, dtype, packed=part in PACKED, exact=exact, bits=bits)
