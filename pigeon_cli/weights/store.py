"""Where a model's files are: the bundled ``mini``, or any folder of the same layout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.spec_file import read_spec

PARTS = (
    "tokenizer",
    "decoder",
    "vae",
    "unet",
    "language",
    "base_adapter",
    "lora",
    "adapter",
    "mask_generator",
    "scorer",
)
"""Names of the weights files of a model folder, ``NAME.safetensors`` each; the base model draws with ``language`` and
``base_adapter``, the aligned one with ``lora``, ``adapter`` and ``mask_generator`` on top."""

BUNDLED = ("mini",)
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
    def files(self) -> list[Path]:
        """Every file of a complete model, whether or not it exists."""
        return [self.path / "config.json", self.text_model, *map(self.part, PARTS)]

    def missing(self) -> list[str]:
        """Files that a complete model has and this folder lacks."""
        return [path.name for path in self.files if not path.is_file()]


def find_model(name: str) -> ModelFolder:
    """The bundled model ``name`` or the folder ``name``; raises :class:`WeightsError` when it is incomplete."""
    folder = locate_model(name)
    if not folder.path.is_dir():
        raise WeightsError(f"there is no model {name!r}", f"use --model {BUNDLED[0]}, or a folder with a config.json")
    if missing := folder.missing():
        raise WeightsError(
            f"the model folder {folder.path} lacks {', '.join(missing)}", "reinstall pigeon, or name another folder"
        )
    return folder


def locate_model(name: str) -> ModelFolder:
    """The bundled model ``name`` or the folder ``name``, whatever is in it: a model in training is incomplete."""
    return ModelFolder(Path(str(files("pigeon_cli"))) / "assets" / name if name in BUNDLED else Path(name))
