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


@dataclass(frozen=True)
class ModelFolder:
    """A model folder: ``config.json``, ``text.model`` (SentencePiece) and one safetensors file per part."""

    path: Path

    @cached_property
    def spec(self) -> ModelSpec:
        return read_spec(self.path / "config.json")

    def part(self, name: str) -> Path:
        """Path of a part's weights, whether or not it exists."""
        return self.path / f"{name}.safetensors"

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
    path = Path(str(files("pigeon_cli"))) / "assets" / name if name in BUNDLED else Path(name)
    folder = ModelFolder(path)
    if not path.is_dir():
        raise WeightsError(f"there is no model {name!r}", f"use --model {BUNDLED[0]}, or a folder with a config.json")
    if missing := folder.missing():
        raise WeightsError(
            f"the model folder {path} lacks {', '.join(missing)}", "reinstall pigeon, or name another folder"
        )
    return folder
