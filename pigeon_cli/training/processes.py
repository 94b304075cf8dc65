"""The processes of a training run: one, or as many as ``accelerate launch`` started.

accelerate says who is who and averages over them; the modules are not wrapped. Losses here are functions of several
modules and of a batch prepared once for two policies, which DistributedDataParallel's one ``forward`` does not fit, and
what is averaged is small: the gradients of LoRA, adapter and mask generator.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from pigeon_cli.engine.devices import DeviceChoice

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """Which part of every batch is to be drawn by whom: part ``index`` of ``count`` equal ones."""

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[T]) -> list[T]:
        """The part of ``items``, whose number ``count`` divides."""
        size = len(items) // self.count
        return list(items[self.index * size : (self.index + 1) * size])


class Processes:
    """This process among those of its run; without a launcher it is alone and accelerate is not even imported."""

    def __init__(self, device: DeviceChoice) -> None:
        self.device = device
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.index = int(os.environ.get("RANK", "0"))

    @property
    def is_main(self) -> bool:
        """Whether this one evaluates, logs and writes."""
        return self.index == 0

    @cached_property
    def _accelerator(self) -> Accelerator:
        from accelerate import Accelerator

        return Accelerator(cpu=self.device.device.type == "cpu")

    def average_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, all in one message."""
        if self.count == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.float().flatten() for gradient in gradients])
        mean = self._mean(flat)
        for parameter, part in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def average(self, values: Mapping[str, float]) -> dict[str, float]:
        """Means over the processes, which all give the same names."""
        if self.count == 1:
            return dict(values)
        mean = self._mean(torch.tensor(list(values.values()), dtype=torch.float64, device=self.device.device))
        return dict(zip(values, mean.tolist(), strict=True))

    def agree(self, value: bool) -> bool:
        """What the main process says."""
        return value if self.count == 1 else self.average({"said": float(value and self.is_main)})["said"] > 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()

    def _mean(self, values: Tensor) -> Tensor:
        mean: Tensor = self._accelerator.reduce(values, reduction="mean")
        return mean


def own_device(device: DeviceChoice) -> DeviceChoice:
    """With several processes on one machine, the GPU of this one."""
    place = os.environ.get("LOCAL_RANK")
    if place is None or device.device.type != "cuda":
        return device
    return replace(device, device=torch.device("cuda", int(place)))
