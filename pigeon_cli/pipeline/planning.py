"""What a request takes of a machine, and the plan for it; :mod:`pigeon_cli.engine.plan` does the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, Literal

import sentencepiece
import torch
from torch import Tensor

from pigeon_cli.engine.conversion import check_quantizer
from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.engine.memory import measure, stays_whole
from pigeon_cli.engine.plan import Device, Plan, Precision, make_plan, precisions
from pigeon_cli.engine.stage_bytes import Demand, reference_sampling, workload
from pigeon_cli.pipeline.imagine import reference_prompt, word_prompt
from pigeon_cli.pipeline.settings import Settings
from pigeon_cli.pipeline.tokenize import ImageTokens
from pigeon_cli.weights.stored_model import StoredModel

SMALLER: Final = 0.85
"""What a device gave is taken to be this share of a plan that turned out to be too large for it."""
EXPECTED_SHARE: Final = 0.5
"""Of an image's patches become tokens, is what a plan counts with; the published tokenizer keeps 90 of 256."""


class MoreTokens(Exception):
    """The images have more tokens than were planned for, the longest of them ``per_image``."""

    def __init__(self, per_image: int) -> None:
        super().__init__(per_image)
        self.per_image = per_image


@dataclass(frozen=True)
class Budget:
    """What a user says about memory; ``None`` and ``auto`` leave it to the model and the machine."""

    max_memory: int | None = None
    """Bytes."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantize: Literal["none", "int8", "nf4"] | None = None

    @property
    def asked(self) -> bool:
        """Whether anything is said."""
        return self != Budget()


def demand_of(
    model: StoredModel,
    text: sentencepiece.SentencePieceProcessor,
    settings: Settings,
    history: int,
    has_reference: bool,
    words: str,
    titles: Sequence[str],
    draws: bool = True,
    per_image: int | None = None,
) -> Demand:
    """What a request takes when each image has ``per_image`` tokens, by default half as many as it has patches."""
    spec = model.spec
    tokens = ceil(EXPECTED_SHARE * spec.tokenizer.tokens) if per_image is None else per_image
    image = ImageTokens(tuple([0] * tokens), (), Tensor())
    asked = word_prompt(text, spec, [image] * history, words, settings, titles)
    imagined = 0
    if not has_reference:
        limit = reference_sampling(spec, settings.sampling).maximum_tokens
        imagined = len(reference_prompt(text, spec, words).ids) + limit
    return Demand(
        images=history + has_reference,
        tokens=len(asked.ids) + settings.sampling.maximum_tokens,
        candidates=len(settings.tries),
        drawn=min(settings.drawings, len(settings.tries)) if draws else 0,
        sampling=settings.sampling,
        reference_tokens=imagined,
        aligned=settings.aligned,
        learned_mask=settings.mask == "learned",
        size=settings.size,
    )


def plan_for(
    model: StoredModel, demand: Demand, device: DeviceChoice, budget: Budget, failed: Plan | None = None
) -> Plan:
    """The plan for ``demand``; after ``failed``, which ran out of memory, the next smaller one.

    What is in memory when it is made is taken to stay there. Raises :class:`MemoryBudgetError` where nothing fits, and
    :class:`UsageError` for a precision that cannot be had.
    """
    natural = Precision.BFLOAT16 if model.mapped else Precision.FLOAT32
    tried = precisions(budget.dtype, budget.quantize, natural)
    for precision in tried:
        check_quantizer(precision, device.device.type)
    choices = {precision: workload(model, demand, precision) for precision in tried}
    return make_plan(choices, budget.max_memory, [_left(each, failed) for each in _devices(device)])


def needs_plan(model: StoredModel, budget: Budget) -> bool:
    """Whether parts come and go; a small model stays in memory as a whole, unless somebody asks for a plan."""
    return budget.asked or not stays_whole(model)


def device_of(plan: Plan, chosen: DeviceChoice) -> DeviceChoice:
    """The device that ``plan`` took, and why."""
    return replace(chosen, device=torch.device(plan.device), reason=f"{chosen.reason}; {plan.reason}")


def _devices(device: DeviceChoice) -> list[Device]:
    found = [measure(device.device)]
    return [*found, measure(torch.device("cpu"))] if device.may_fall_back else found


def _left(device: Device, failed: Plan | None) -> Device:
    if failed is None or failed.device != device.name:
        return device
    return replace(device, free=max(0, int(SMALLER * failed.peak) - device.held))
