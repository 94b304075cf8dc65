"""The files of a published alignment, found by their names wherever a trainer left them, before any is fetched.

Forms (parity NOTES, section 7): ``checkpoint-N/{mask_generator,adapter}/...`` of stage 1 with ``llama/`` beside them,
and ``llama/policy/`` of stage 2, in the same checkpoint or in another one, where it may have been moved to ``llama/``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from pigeon_cli.core.errors import WeightsError

MODULE: Final = r"(?:model\.safetensors|pytorch_model\.bin)"
LORA: Final = r"(.*/)?llama/(policy/)?adapter_model\.(?:safetensors|bin)"
"""The first group is the checkpoint. A copy in ``llama/reference/`` is what stage 2 compared with, not its result."""
LORA_CONFIG: Final = "adapter_config.json"
_FORM: Final = "give --source PART=DIR or hub:REPO with mask_generator/, adapter/ and llama/ of one checkpoint each"


def choose_alignment(names: Sequence[str], scenario: str) -> dict[str, str]:
    """The needed files: place in our folder to path within the source, among ``names`` of the whole source.

    Where a source has several alignments, the one whose path speaks of ``scenario`` is taken; of two LoRAs that of
    stage 2. Raises :class:`WeightsError` when a piece is missing or several are left to choose from.
    """
    mask = _single("mask_generator", _spoken(names, rf"(.*/)?mask_generator/{MODULE}", scenario))
    checkpoint = mask.rpartition("mask_generator/")[0]
    adapter = _single("adapter", _spoken(names, rf"{re.escape(checkpoint)}adapter/{MODULE}", scenario))
    loras = _spoken(names, LORA, scenario)
    lora = _single("llama", [name for name in loras if _of_stage_two(name, checkpoint)] or loras)
    config = f"{lora.rpartition('/')[0]}/{LORA_CONFIG}"
    if config not in names:
        raise WeightsError(f"the source lacks {config}", _FORM)
    pieces = {"mask_generator": mask, "adapter": adapter, "llama": lora}
    placed = {f"{piece}/{name.rpartition('/')[2]}": name for piece, name in pieces.items()}
    return {**placed, f"llama/{LORA_CONFIG}": config}


def _spoken(names: Sequence[str], pattern: str, scenario: str) -> list[str]:
    found = [name for name in names if re.fullmatch(pattern, name)]
    return [name for name in found if scenario in name.lower()] or found


def _of_stage_two(name: str, stage_one: str) -> bool:
    found = re.fullmatch(LORA, name)
    return found is not None and (bool(found[2]) or (found[1] or "") != stage_one)


def _single(piece: str, found: Sequence[str]) -> str:
    if not found:
        raise WeightsError(f"the source has no {piece}/ with weights in it", _FORM)
    if len({name.rpartition("/")[0] for name in found}) > 1:
        raise WeightsError(f"the source has several {piece}/: {', '.join(sorted(found))}", _FORM)
    # Two formats of one and the same weights: the one that is no pickle.
    return max(found, key=lambda name: name.endswith(".safetensors"))
