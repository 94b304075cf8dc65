"""What a model on disk offers to whoever draws with it, whatever the layout of its folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.records import ModelRecord

M = TypeVar("M")
"""A module; not bound to ``nn.Module``, since a type checker cannot see what diffusers' classes descend from."""


@dataclass(frozen=True)
class TensorFile:
    """A weights file of a part, and our name for each of its keys; ``None`` for a key that is not read."""

    path: Path
    place: Callable[[str], str | None]


class StoredModel(Protocol):
    """A complete model. Its parts go by the names of :data:`pigeon_cli.weights.store.PARTS`, and ``clip``."""

    @property
    def path(self) -> Path: ...

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def text_model(self) -> Path:
        """The SentencePiece model."""

    @property
    def wordings(self) -> tuple[str, ...]:
        """Names of the prompt wordings that the model was made for, its default first."""

    @property
    def mapped(self) -> bool:
        """Whether weights are mapped and stay as they are in the files, so that a LoRA lies beside them."""

    @property
    def clip(self) -> Path | None:
        """The folder of the CLIP model that compares drawn pixels; ``None`` where there is none."""

    def tensor_files(self, part: str) -> list[TensorFile]:
        """The files that hold ``part``; raises :class:`WeightsError` for one that the model does not have."""

    def fill(self, part: str, build: Callable[[], M], start: str = "") -> M:
        """The module of ``build`` with the weights of ``part``, strictly, or with those whose names begin with
        ``start``, which is taken off; raises :class:`WeightsError`."""

    def aligned_by(self, folder: Path) -> StoredModel:
        """The same model with another alignment; raises :class:`WeightsError` for one that does not belong to it."""

    def record(self) -> ModelRecord:
        """The model's name and what is known of each of its files."""
