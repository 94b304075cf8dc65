"""The built dataset as others read it: memory-mapped images and one record per image."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pigeon_cli.core.errors import InputError

IMAGES_FILE = "images.npy"
INDEX_FILE = "index.jsonl"
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class IconRecord:
    """One image. ``id`` is its row in ``images``; ``cell`` is "meaning/set"; ``twins`` numbers its group of twins."""

    id: int
    set: str
    family: str
    name: str
    meaning: str
    cell: str
    split: str
    twins: int
    licence: str
    attribution: str
    label: str
    tags: tuple[str, ...]
    group: str
    subgroup: str

    def to_json(self) -> str:
        """One line of the index."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> IconRecord:
        """The record of one line of the index."""
        fields = json.loads(line)
        return cls(**{**fields, "tags": tuple(fields["tags"])})


class IconDataset:
    """``images`` uint8 [N, size, size, 4] (straight alpha, read-only) and ``records``, N in the same order."""

    def __init__(self, images: NDArray[np.uint8], records: Sequence[IconRecord]) -> None:
        self.images = images
        self.records = tuple(records)

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def by_cell(self) -> dict[tuple[str, str], IconRecord]:
        """(meaning, set) -> record."""
        return {(record.meaning, record.set): record for record in self.records}

    @cached_property
    def by_split(self) -> dict[str, tuple[IconRecord, ...]]:
        """train, valid, test, unseen -> records in order."""
        return grouped(self.records, "split")

    @cached_property
    def by_set(self) -> dict[str, tuple[IconRecord, ...]]:
        """Set -> records in order."""
        return grouped(self.records, "set")

    @cached_property
    def by_meaning(self) -> dict[str, tuple[IconRecord, ...]]:
        """Meaning -> records in order."""
        return grouped(self.records, "meaning")

    @cached_property
    def train_by_set(self) -> dict[str, tuple[IconRecord, ...]]:
        """Set -> its train records: all that any stage of training may see."""
        return grouped(self.by_split.get("train", ()), "set")

    @cached_property
    def train_by_meaning(self) -> dict[str, tuple[IconRecord, ...]]:
        """Meaning -> its train records."""
        return grouped(self.by_split.get("train", ()), "meaning")


def load_dataset(folder: Path) -> IconDataset:
    """The dataset in ``folder``, images mapped and not read; InputError when it is missing or incomplete."""
    try:
        images = np.load(folder / IMAGES_FILE, mmap_mode="r", allow_pickle=False)
        lines = (folder / INDEX_FILE).read_text(encoding="utf-8").splitlines()
        records = [IconRecord.from_json(line) for line in lines]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"no usable dataset in {folder}: {error}", "build it again with build_dataset") from error
    shape_is_right = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 4
    if not shape_is_right or [record.id for record in records] != list(range(len(images))):
        raise InputError(f"images and index in {folder} do not belong together", "build it again with build_dataset")
    return IconDataset(images, records)


def grouped(records: Sequence[IconRecord], key: str) -> dict[str, tuple[IconRecord, ...]]:
    """Records in order by their field ``key``."""
    groups: defaultdict[str, list[IconRecord]] = defaultdict(list)
    for record in records:
        groups[getattr(record, key)].append(record)
    return {name: tuple(members) for name, members in groups.items()}
