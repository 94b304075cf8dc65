"""Stage ``memory``: one plain drawing per train meaning, to be found by its words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch

from pigeon_cli.core.configs import MemoryConfig
from pigeon_cli.core.errors import UsageError
from pigeon_cli.models.memory import Memory
from pigeon_cli.pipeline.recall import MEMORY_LIST, Remembered
from pigeon_cli.training.code_cache import EncodedLook, plain_codes
from pigeon_cli.training.data.dataset import IconDataset, IconRecord
from pigeon_cli.weights.checkpoint import save_part
from pigeon_cli.weights.store import ModelFolder

CLEAREST: Final = (
    "twemoji", "fluent-emoji-flat", "noto", "emojione", "fluent-emoji", "noto-v1", "fxemoji", "emojione-monotone",
    "fluent-emoji-high-contrast",
)  # fmt: skip
"""Icon sets whose drawings stand for a meaning, the plainest first: flat and in colours, which every style can take."""


def build_memory(folder: ModelFolder, dataset: IconDataset, looks: list[EncodedLook]) -> int:
    """Write ``memory.safetensors`` and ``memory.txt`` from the plain pictures of a code cache; returns how many
    drawings. Raises :class:`UsageError` where ``config.json`` expects another number.
    """
    plain = plain_codes(looks)
    chosen = sorted(_clearest(dataset, plain).values(), key=lambda record: record.meaning)
    config = MemoryConfig(len(chosen), folder.spec.tokenizer.tokens)
    if folder.spec.memory != config:
        raise UsageError(
            f"{folder.path / 'config.json'} describes another memory",
            f'set it to "memory": {{"drawings": {config.drawings}, "tokens": {config.tokens}}}',
        )
    memory = Memory(config)
    memory.codes.copy_(torch.from_numpy(np.stack([plain[record.id] for record in chosen])))
    save_part(folder.part("memory"), memory.state_dict())
    lines = [Remembered(record.label, " ".join(record.tags)).line() for record in chosen]
    target = folder.path / MEMORY_LIST
    temporary = target.with_suffix(".part")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(temporary, target)
    return len(chosen)


def _clearest(dataset: IconDataset, plain: Mapping[int, object]) -> dict[str, IconRecord]:
    """By meaning the record that stands for it."""
    chosen: dict[str, IconRecord] = {}
    for name in reversed(CLEAREST):
        for record in dataset.train_by_set.get(name, ()):
            if record.id in plain:
                chosen[record.meaning] = record
    return chosen
