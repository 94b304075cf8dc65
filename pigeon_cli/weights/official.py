"""A folder in the published layout of LaVIT-7B-v2, with or without an alignment, and the loading of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

from torch import nn

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.keymaps import MODEL_FILES
from pigeon_cli.weights.official_spec import CONFIGS, folder_spec
from pigeon_cli.weights.published import Source, assign, find_files
from pigeon_cli.weights.published_alignment import Alignment, merge_lora

M = TypeVar("M")
"""A module; not bound to ``nn.Module``, since a type checker cannot see what diffusers' classes descend from."""


@dataclass(frozen=True)
class OfficialFolder:
    """LaVIT-7B-v2's own folders (NOTES section 7) and the published alignment that belongs on top.

    The same parts as a :class:`pigeon_cli.weights.store.ModelFolder`, but for ``base_adapter`` and ``scorer``, which
    the published model does not have.
    """

    path: Path
    alignment: Alignment | None = None

    @cached_property
    def spec(self) -> ModelSpec:
        return folder_spec(self.path)

    @property
    def text_model(self) -> Path:
        return self.path / "language_model" / "tokenizer.model"

    def sources(self, part: str) -> list[Source]:
        """The files that make up ``part``; raises :class:`WeightsError` where only an alignment could have it."""
        found = [Source(entry, find_files(self.path, entry.files)) for entry in MODEL_FILES if entry.part == part]
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


def is_official(path: Path) -> bool:
    """Whether ``path`` is laid out as the published model, complete or not."""
    return (path / "language_model").is_dir() and (path / "visual_tokenizer").is_dir()


def load_official(folder: OfficialFolder, part: str, module: M) -> M:
    """Give ``module`` the mapped weights of ``part``: tokenizer, decoder, language, unet, vae, mask_generator, adapter.

    ``module`` is built from ``folder.spec`` as :func:`pigeon_cli.weights.published.assign` says, and returned. Raises
    :class:`WeightsError` with the file, the published key and both shapes.
    """
    assign(cast(nn.Module, module), folder.sources(part))
    return module


def load_aligned_language(folder: OfficialFolder, module: M) -> M:
    """The language model with its LoRA folded in; else as :func:`load_official`."""
    load_official(folder, "language", module)
    merge_lora(cast(nn.Module, module), folder.aligned, folder.spec.language)
    return module
