"""Where a model's files are: the bundled ``mini``, a folder of the same layout, or a published model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import WeightsError
from pigeon_cli.core.records import ModelRecord, WeightsFile
from pigeon_cli.weights.spec_file import read_spec
from pigeon_cli.weights.stored_model import M, StoredModel, TensorFile

if TYPE_CHECKING:
    from torch import nn

PARTS = (
    "tokenizer",
    "decoder",
    "vae",
    "unet",
    "translator",
    "language",
    "base_adapter",
    "lora",
    "adapter",
    "mask_generator",
    "scorer",
)
"""Names of the weights files of a model folder, ``NAME.safetensors`` each; the base model draws with ``language`` and
``base_adapter``, the aligned one with ``lora``, ``adapter`` and ``mask_generator`` on top."""
OPTIONAL_PARTS = ("memory", "taste")
"""Parts that only a model has whose configuration describes them under the same name."""

BUNDLED = ("mini",)
DOWNLOADED = ("sticker", "poster")
"""Combinations of the catalog that draw, each named after the wording that its alignment was trained with."""
ALIGNED_PARTS = ("lora", "adapter", "mask_generator")
"""Parts that an alignment brings in place of the model's own."""


@dataclass(frozen=True)
class ModelFolder:
    """A model folder: ``config.json``, ``text.model`` (SentencePiece) and one safetensors file per part.

    ``alignment`` is a folder whose ``ALIGNED_PARTS`` take the place of the model's own
    (:mod:`pigeon_cli.weights.alignment_folder`).
    """

    path: Path
    alignment: Path | None = None

    @cached_property
    def spec(self) -> ModelSpec:
        return read_spec(self.path / "config.json")

    def part(self, name: str) -> Path:
        """Path of a part's weights, whether or not it exists."""
        folder = self.path if self.alignment is None or name not in ALIGNED_PARTS else self.alignment
        return folder / f"{name}.safetensors"

    @property
    def text_model(self) -> Path:
        return self.path / "text.model"

    @property
    def wordings(self) -> tuple[str, ...]:
        return (self.spec.name,)

    @property
    def mapped(self) -> bool:
        return False

    @property
    def clip(self) -> Path | None:
        return None

    def tensor_files(self, part: str) -> list[TensorFile]:
        return [TensorFile(self.part(part), str)]

    def fill(self, part: str, build: Callable[[], M], start: str = "") -> M:
        """Weights are copied into the module as it was built, whatever type they have in the file."""
        from pigeon_cli.weights.checkpoint import load_part
        from pigeon_cli.weights.tied import load_language

        module = build()
        if part == "language" and not start:
            load_language(cast("nn.Module", module), self.part(part))
        else:
            load_part(cast("nn.Module", module), self.part(part), start=start)
        return module

    def aligned_by(self, folder: Path) -> ModelFolder:
        from pigeon_cli.weights.alignment_folder import with_alignment

        return with_alignment(self, folder)

    def record(self) -> ModelRecord:
        from pigeon_cli.weights.checkpoint import sha256_of

        return ModelRecord(self.spec.name, tuple(WeightsFile(path.name, sha256_of(path)) for path in self.files))

    @property
    def files(self) -> list[Path]:
        """Every file of a complete model, whether or not it exists."""
        config = self.path / "config.json"
        described = OPTIONAL_PARTS if config.is_file() else ()
        parts = [*PARTS, *(name for name in described if getattr(self.spec, name) is not None)]
        return [config, self.text_model, *map(self.part, parts)]

    def missing(self) -> list[str]:
        """Files that a complete model has and this folder lacks."""
        return [path.name for path in self.files if not path.is_file()]


def find_model(name: str) -> StoredModel:
    """A bundled model, one that ``pigeon download`` keeps in the cache, or a folder in our layout or the published one.

    Raises :class:`WeightsError` when it is incomplete.
    """
    if name not in DOWNLOADED and (name in BUNDLED or not is_official(Path(name))):
        return find_folder(name)
    # Models of several gigabytes can afford what their loading imports.
    from pigeon_cli.weights.find_published import find_downloaded, find_official

    return find_downloaded(name) if name in DOWNLOADED else find_official(Path(name))


def is_official(path: Path) -> bool:
    """Whether ``path`` is laid out as the published model, complete or not."""
    return (path / "language_model").is_dir() and (path / "visual_tokenizer").is_dir()


def find_folder(name: str) -> ModelFolder:
    """The bundled model ``name`` or the folder ``name`` in our layout; raises :class:`WeightsError` as
    :func:`find_model`."""
    folder = locate_model(name)
    if not folder.path.is_dir():
        known = ", ".join((*BUNDLED, *DOWNLOADED))
        raise WeightsError(f"there is no model {name!r}", f"use --model {known}, or a folder that holds a model")
    if missing := folder.missing():
        raise WeightsError(
            f"the model folder {folder.path} lacks {', '.join(missing)}", "reinstall pigeon, or name another folder"
        )
    return folder


def locate_model(name: str) -> ModelFolder:
    """The bundled model ``name`` or the folder ``name``, whatever is in it: a model in training is incomplete."""
    return ModelFolder(Path(str(files("pigeon_cli"))) / "assets" / name if name in BUNDLED else Path(name))
