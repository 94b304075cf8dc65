"""A Pigeon alignment on disk: mask generator, adapter and LoRA, in the published forms or in one folder of ours.

Published (NOTES section 7): the stage-1 folder ``checkpoint-N`` with ``mask_generator/``, ``adapter/`` and ``llama/``,
and the stage-2 folder ``checkpoint-N`` with ``llama/policy/`` alone. Ours: ``alignment.safetensors`` and
``pigeon.json``.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pigeon_cli.core.configs import LanguageConfig
from pigeon_cli.core.errors import OutputError, WeightsError
from pigeon_cli.weights.checkpoint import save_part
from pigeon_cli.weights.keymaps import ADAPTER, ALIGNMENT_FILES, LORA, MASK_GENERATOR, Target, packed
from pigeon_cli.weights.published import Source, find_files, read_json

PACKED_WEIGHTS, PACKED_SETTINGS = "alignment.safetensors", "pigeon.json"
LORA_SETTINGS = "adapter_config.json"
REFERENCE_ADAPTER = "reference"
"""Folder of the frozen copy that preference alignment compares with; never what one wants to draw with."""

NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "fan_in_fan_out": (False,),
    "use_rslora": (False,),
    "alpha_pattern": ({}, None),
}
"""Settings of peft that would change what the tensors mean without showing in their names or shapes, and the values
under which they do not."""

_HINT = "use a published Pigeon alignment: a checkpoint folder with mask_generator, adapter and llama in it"


@dataclass(frozen=True)
class LoraSettings:
    """What the tensors of a LoRA do not say themselves."""

    rank: int
    alpha: int
    targets: frozenset[str]


@dataclass(frozen=True)
class Alignment:
    """Where the three parts of an alignment are; nothing of them has been read."""

    sources: tuple[Source, ...]
    lora: LoraSettings
    lora_file: Path
    """The file that ``lora`` was read from."""

    def source(self, part: str) -> Source:
        """The files of ``mask_generator``, ``adapter`` or ``lora``; raises ``KeyError`` for any other part."""
        return {source.keymap.part: source for source in self.sources}[part]


def find_alignment(*folders: Path) -> Alignment:
    """The one alignment in ``folders`` and below: of ours, of stage 1, or of stage 1 and 2 together.

    A stage-2 LoRA stands in for that of stage 1, since it was trained on from it. Raises :class:`WeightsError` for
    folders that hold nothing, or more than one of a kind, which it names.
    """
    if ours := [folder for folder in folders if (folder / PACKED_WEIGHTS).is_file()]:
        return _packed(_only("alignment", ours, folders))
    stage_one = _stage_one_folders(folders)
    checkpoint = _only("folder with mask_generator and adapter", stage_one, folders)
    lora = _only("LoRA", _lora_folders(folders, stage_one), folders)
    sources = (
        Source(MASK_GENERATOR, find_files(checkpoint, MASK_GENERATOR.files)),
        Source(ADAPTER, find_files(checkpoint, ADAPTER.files)),
        Source(LORA, find_files(lora, LORA.files)),
    )
    settings = lora / LORA_SETTINGS
    return Alignment(sources, _settings(settings, read_json(settings)), settings)


def check_settings(alignment: Alignment, config: LanguageConfig) -> None:
    """Raise :class:`WeightsError` unless rank, alpha and targets of the LoRA are those of the model."""
    expected = LoraSettings(config.lora_rank, config.lora_alpha, frozenset(config.lora_targets))
    if alignment.lora != expected:
        raise WeightsError(
            f"{alignment.lora_file} describes a LoRA of {_words(alignment.lora)}; the model wants {_words(expected)}",
            "use the alignment that was trained for this model",
        )


def pack(alignment: Alignment, folder: Path) -> Alignment:
    """Write ``alignment`` as one folder of ours, ``pigeon.json`` last, and return what is there then.

    Tensors keep their values: they are written in the smallest type that holds those of all files.
    """
    tensors: dict[str, Tensor] = {}
    for source in alignment.sources:
        for published, (_, tensor) in source.files.tensors().items():
            if isinstance(place := source.keymap.place(published), Target):
                tensors[f"{place.part}.{place.key}"] = tensor
    types = (tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    save_part(folder / PACKED_WEIGHTS, tensors, functools.reduce(torch.promote_types, types))
    _write_settings(folder / PACKED_SETTINGS, alignment.lora)
    return _packed(folder)


def _packed(folder: Path) -> Alignment:
    settings = folder / PACKED_SETTINGS
    keymaps = [packed(entry.part) for entry in ALIGNMENT_FILES]
    sources = tuple(Source(keymap, find_files(folder, keymap.files)) for keymap in keymaps)
    return Alignment(sources, _settings(settings, read_json(settings)), settings)


def _write_settings(path: Path, lora: LoraSettings) -> None:
    """In peft's own words, so that both forms are read alike."""
    data = {"peft_type": "LORA", "r": lora.rank, "lora_alpha": lora.alpha, "target_modules": sorted(lora.targets)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error}", "free space or choose another folder") from error


def _settings(path: Path, data: Mapping[str, Any]) -> LoraSettings:
    for name, neutral in NEUTRAL.items():
        if name in data and data[name] not in neutral:
            raise WeightsError(f"{path} has {name} = {data[name]!r}, which Pigeon's LoRA does not have", _HINT)
    rank, alpha, targets = data.get("r"), data.get("lora_alpha"), data.get("target_modules")
    if not isinstance(rank, int) or not isinstance(alpha, int) or not isinstance(targets, list):
        raise WeightsError(f"{path} lacks r, lora_alpha or a list of target_modules", _HINT)
    return LoraSettings(rank, alpha, frozenset(map(str, targets)))


def _stage_one_folders(folders: Iterable[Path]) -> list[Path]:
    found = {path.parent for folder in folders for path in folder.rglob("mask_generator")}
    return sorted(path for path in found if (path / "mask_generator").is_dir() and (path / "adapter").is_dir())


def _lora_folders(folders: Iterable[Path], stage_one: Sequence[Path]) -> list[Path]:
    """Those of stage 2, else those of stage 1: ``llama`` beside a mask generator.

    Published stage-2 checkpoints keep theirs in ``llama/policy``; the published inference wants it moved to ``llama``
    (NOTES 6.5).
    """
    found = sorted({path.parent for folder in folders for path in folder.rglob(LORA_SETTINGS)})
    found = [path for path in found if path.name != REFERENCE_ADAPTER]
    return [path for path in found if path.parent not in stage_one] or found


def _only(what: str, found: Sequence[Path], folders: Sequence[Path]) -> Path:
    names = ", ".join(map(str, found))
    if len(found) > 1:
        raise WeightsError(f"there is more than one {what}: {names}", "name the checkpoint folder that you want")
    if not found:
        raise WeightsError(f"there is no {what} in {', '.join(map(str, folders))}", _HINT)
    return found[0]


def _words(lora: LoraSettings) -> str:
    return f"rank {lora.rank}, alpha {lora.alpha} on {', '.join(sorted(lora.targets))}"
