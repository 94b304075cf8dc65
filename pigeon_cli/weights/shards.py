"""Names of published weights: shards, ``NAME-00001-of-00003.ENDING``, and what pickles are called after conversion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

PICKLE: Final = ".bin"
INDEX: Final = ".bin.index.json"


def missing_shards(names: Sequence[str]) -> list[int]:
    """The numbers that are not among ``names``; empty when they are whole, or are not numbered at all."""
    numbered = [found.groups() for name in names if (found := re.search(r"-(\d+)-of-(\d+)\.\w+$", name))]
    if not numbered:
        return []
    there = {int(number) for number, _ in numbered}
    return sorted(set(range(1, int(numbered[0][1]) + 1)) - there)


def converted_name(name: str) -> str:
    """What a published file is called after conversion; unchanged when there is nothing to convert."""
    for ending in (INDEX, PICKLE):
        if name.endswith(ending):
            return name.removesuffix(ending) + ending.replace(PICKLE, ".safetensors")
    return name
