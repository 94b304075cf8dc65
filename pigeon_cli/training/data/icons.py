"""npm packages -> the training dataset of ``mini``: images, index and summary (DESIGN.md section 3)."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pigeon_cli.core.errors import OutputError
from pigeon_cli.training.data.dataset import (
    IMAGES_FILE,
    INDEX_FILE,
    SUMMARY_FILE,
    IconDataset,
    IconRecord,
    load_dataset,
)
from pigeon_cli.training.data.packages import Icon, IconPackage, fetch_packages, meaning_of, read_packages
from pigeon_cli.training.data.render import render_all
from pigeon_cli.training.data.sets import ICON_SETS
from pigeon_cli.training.data.splits import assign_splits
from pigeon_cli.training.data.twins import twin_groups
from pigeon_cli.training.data.words import WordBook

__all__ = ["DatasetSummary", "IconDataset", "IconRecord", "build_dataset", "load_dataset"]

MINIMUM_STYLES = 3


@dataclass(frozen=True)
class DatasetSummary:
    """What was built, from what: counts, and version, sha256 and attribution of every package."""

    images: int
    meanings: int
    size: int
    splits: dict[str, int]
    sets: dict[str, dict[str, int]]
    twin_groups: int
    largest_twin_group: int
    packages: dict[str, dict[str, str]]


def build_dataset(
    source: Path | None,
    out: Path,
    size: int = 128,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DatasetSummary:
    """Write ``images.npy`` (uint8 [N, size, size, 4]), ``index.jsonl`` and ``summary.json`` into ``out``.

    ``source`` is a folder of npm ``.tgz`` files; None fetches them with ``npm pack``. Kept are the meanings that at
    least three of the sets draw, without flags, skin tones and keycaps. Same packages, same bytes. Raises InputError
    for packages that are missing, damaged or not among the nine sets; OutputError when ``out`` cannot be written.
    """
    with tempfile.TemporaryDirectory() as temporary:
        if source is None:
            fetch_packages(Path(temporary))
        packages, words = read_packages(source or Path(temporary))
    book = WordBook(words, packages)
    icons = choose_icons(packages, book)
    try:
        out.mkdir(parents=True, exist_ok=True)
        images = _write_images(icons, out, size, progress)
        records = _records(icons, images, packages, book)
        summary = _summary(records, size, packages, words)
        _write_text(out / INDEX_FILE, "".join(record.to_json() + "\n" for record in records))
        _write_text(out / SUMMARY_FILE, json.dumps(asdict(summary), indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"the dataset cannot be written to {out}: {error}", "choose a folder with room") from error
    return summary


def choose_icons(packages: Sequence[IconPackage], book: WordBook) -> list[Icon]:
    """One icon per (set, meaning), ordered so, for the meanings that enough sets draw."""
    styles: defaultdict[str, dict[str, Icon]] = defaultdict(dict)
    for package in packages:
        # A set keeps retired names as hidden icons; the current one stands for the meaning.
        for icon in sorted(package.icons, key=lambda icon: (icon.hidden, icon.name)):
            styles[icon.meaning].setdefault(icon.set, icon)
    kept = [
        icon
        for meaning, drawn in styles.items()
        if len(drawn) >= MINIMUM_STYLES and book.words(meaning, "").is_picture
        for icon in drawn.values()
    ]
    return sorted(kept, key=lambda icon: (icon.set, icon.meaning))


def _write_images(
    icons: Sequence[Icon], out: Path, size: int, progress: Callable[[int, int], None]
) -> NDArray[np.uint8]:
    """Render into ``images.npy`` beside its final place, then put it there."""
    partial = out / f"{IMAGES_FILE}.part"
    images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(icons), size, size, 4))
    try:
        render_all(icons, size, images, progress)
        images.flush()
        os.replace(partial, out / IMAGES_FILE)
    finally:
        partial.unlink(missing_ok=True)
    return images


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _records(
    icons: Sequence[Icon], images: NDArray[np.uint8], packages: Sequence[IconPackage], book: WordBook
) -> list[IconRecord]:
    attribution = {package.set: package.attribution for package in packages}
    sets, names = [icon.set for icon in icons], [icon.name for icon in icons]
    groups = twin_groups(images, sets, names, [icon.body for icon in icons])
    synonyms = [(meaning_of(a), meaning_of(b)) for package in packages for a, b in package.aliases.items()]
    splits = assign_splits([(icon.meaning, icon.set) for icon in icons], groups, synonyms)
    records = []
    for number, icon in enumerate(icons):
        words = book.words(icon.meaning, icon.name)
        records.append(
            IconRecord(
                id=number,
                set=icon.set,
                family=ICON_SETS[icon.set].family,
                name=icon.name,
                meaning=icon.meaning,
                cell=f"{icon.meaning}/{icon.set}",
                split=splits[number],
                twins=groups[number],
                licence=ICON_SETS[icon.set].licence,
                attribution=attribution[icon.set],
                label=words.label,
                tags=words.tags,
                group=words.group,
                subgroup=words.subgroup,
            )
        )
    return records


def _summary(
    records: Sequence[IconRecord], size: int, packages: Sequence[IconPackage], words: dict[str, Any]
) -> DatasetSummary:
    by_set: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        by_set[record.set][record.split] += 1
    sources = {
        ICON_SETS[package.set].package: {
            "version": package.version,
            "sha256": package.sha256,
            "licence": ICON_SETS[package.set].licence,
            "attribution": package.attribution,
        }
        for package in packages
    }
    sources["emojibase-data"] = {"version": words["version"], "sha256": words["sha256"], "licence": "MIT"}
    twins = Counter(record.twins for record in records)
    return DatasetSummary(
        images=len(records),
        meanings=len({record.meaning for record in records}),
        size=size,
        splits=dict(sorted(Counter(record.split for record in records).items())),
        sets={name: dict(sorted(counts.items())) for name, counts in sorted(by_set.items())},
        twin_groups=len(twins),
        largest_twin_group=max(twins.values(), default=0),
        packages=sources,
    )
