"""A folder in the published layout of LaVIT-7B-v2, with or without an alignment, and the loading of its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, cast

from accelerate import init_empty_weights
from torch import nn

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import WeightsError
from pigeon_cli.core.records import ModelRecord, WeightsFile
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.keymaps import CLIP, LORA, MODEL_FILES, Target, starting
from pigeon_cli.weights.manifest import StoredFile, recorded_files
from pigeon_cli.weights.official_spec import CONFIGS, folder_spec
from pigeon_cli.weights.published import Source, assign, find_files
from pigeon_cli.weights.published_alignment import Alignment, check_settings, find_alignment
from pigeon_cli.weights.store import ALIGNED_PARTS, DOWNLOADED
from pigeon_cli.weights.store import is_official as is_official
from pigeon_cli.weights.stored_model import M, TensorFile

HASHED_BELOW: Final = 64 * 2**20
"""Larger files are not read for the report: their hash is that of the download, or is not known."""


@dataclass(frozen=True)
class OfficialFolder:
    """LaVIT-7B-v2's own folders (NOTES section 7) and the published alignment that belongs on top.

    The same parts as a :class:`pigeon_cli.weights.store.ModelFolder`, but for ``base_adapter`` and ``scorer``, which
    the published model does not have.
    """

    path: Path
    alignment: Alignment | None = None
    scenario: str = DOWNLOADED[0]
    """What the alignment was trained for: the wording that is taken when nobody asks for another."""
    clip: Path | None = None

    @cached_property
    def spec(self) -> ModelSpec:
        return folder_spec(self.path)

    @property
    def text_model(self) -> Path:
        return self.path / "language_model" / "tokenizer.model"

    @property
    def wordings(self) -> tuple[str, ...]:
        return (self.scenario, *(name for name in DOWNLOADED if name != self.scenario))

    @property
    def mapped(self) -> bool:
        return True

    def tensor_files(self, part: str) -> list[TensorFile]:
        return [TensorFile(path, _our_key(source)) for source in self.sources(part) for path in source.files.shards]

    def fill(self, part: str, build: Callable[[], M], start: str = "") -> M:
        """The module is built without weights and gets the mapped tensors as they are."""
        if part == LORA.part:
            check_settings(self.aligned, self.spec.language)
        with init_empty_weights(include_buffers=False):
            module = build()
        sources = [Source(starting(source.keymap, start), source.files) for source in self.sources(part)]
        assign(cast(nn.Module, module), sources)
        return module

    def aligned_by(self, folder: Path) -> OfficialFolder:
        return replace(self, alignment=find_alignment(folder))

    def record(self) -> ModelRecord:
        recorded = {root / file.path: (root, file) for root in self._roots() for file in recorded_files(root)}
        return ModelRecord(self.spec.name, tuple(self._known(path, recorded) for path in dict.fromkeys(self._files())))

    def _roots(self) -> Iterator[Path]:
        """The folders that are parts of the download cache, if this model was downloaded."""
        yield self.path
        if self.alignment is not None:
            yield self.alignment.lora_file.parent
        if self.clip is not None:
            yield self.clip

    def _files(self) -> Iterator[Path]:
        yield from (self.path / name for name in CONFIGS)
        yield self.text_model
        sources = [Source(entry, find_files(self.path, entry.files)) for entry in MODEL_FILES]
        if self.alignment is not None:
            yield self.alignment.lora_file
            sources += self.alignment.sources
        if self.clip is not None:
            sources += self.sources(CLIP.part)
        for source in sources:
            yield from source.files.shards

    def _known(self, path: Path, recorded: Mapping[Path, tuple[Path, StoredFile]]) -> WeightsFile:
        """What is known of one file: from the download's records, if it still has their size, or by reading a small
        one."""
        size = path.stat().st_size
        if path in recorded:
            root, file = recorded[path]
            if file.bytes == size:
                return WeightsFile(f"{root.name}/{file.path}", file.sha256, "download")
        name = path.relative_to(self.path).as_posix() if path.is_relative_to(self.path) else "/".join(path.parts[-2:])
        if size <= HASHED_BELOW:
            return WeightsFile(name, sha256_of(path))
        return WeightsFile(name, None, "nothing")

    def sources(self, part: str) -> list[Source]:
        """The files that make up ``part``; raises :class:`WeightsError` where only an alignment could have it, and for
        a part that published models do not have."""
        if part == CLIP.part and self.clip is not None:
            return [Source(CLIP, find_files(self.clip, CLIP.files))]
        found = [Source(entry, find_files(self.path, entry.files)) for entry in MODEL_FILES if entry.part == part]
        if not found and part not in ALIGNED_PARTS:
            raise WeightsError(
                f"published models have no {part}, and {self.path} is one",
                "use a model that has one, such as mini",
            )
        return found or [self.aligned.source(part)]

    def missing(self) -> list[str]:
        """Files that a complete model has and this folder lacks, relative to it."""
        expected = [self.path / name for name in CONFIGS] + [self.text_model]
        expected.extend(path for entry in MODEL_FILES for path in find_files(self.path, entry.files).shards)
        return [str(path.relative_to(self.path)) for path in expected if not path.is_file()]

    @property
    def aligned(self) -> Alignment:
        """The alignment; raises :class:`WeightsError` where there is none."""
        if self.alignment is None:
            raise WeightsError(
                f"the model {self.path} comes without an alignment",
                "name a folder that holds a published Pigeon alignment",
            )
        return self.alignment


def _our_key(source: Source) -> Callable[[str], str | None]:
    def place(key: str) -> str | None:
        found = source.keymap.place(key)
        return found.key if isinstance(found, Target) else None

    return place
