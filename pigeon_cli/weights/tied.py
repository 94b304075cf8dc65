"""Loading a language model whose output layer is its embedding table, which a weights file therefore holds once."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from pigeon_cli.weights.checkpoint import load_tensors, read_part


def load_language(model: nn.Module, path: Path) -> None:
    """Strictly like :func:`load_part`; ``lm_head.weight`` is the table where the model ties them."""
    found = read_part(path)
    wanted = dict(model.state_dict())
    table, output = wanted.get("model.embed_tokens.weight"), wanted.get("lm_head.weight")
    if isinstance(table, torch.Tensor) and isinstance(output, torch.Tensor) and table.data_ptr() == output.data_ptr():
        del wanted["lm_head.weight"]
    load_tensors(wanted, found, path)
