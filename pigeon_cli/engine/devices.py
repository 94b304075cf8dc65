"""The choice of a device, with the reason for it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from pigeon_cli.core.errors import UsageError


@dataclass(frozen=True)
class DeviceChoice:
    """A torch device and the words that say why it was taken."""

    device: torch.device
    reason: str
    may_fall_back: bool = False
    """Whether the CPU may stand in, should the device be too small."""

    def autocast(self) -> AbstractContextManager[None]:
        """bf16 autocast for training on this device."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def choose_device(name: str = "auto") -> DeviceChoice:
    """``auto`` takes CUDA, then MPS, then CPU; a named device that is not there is a :class:`UsageError`."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        best = next(kind for kind, there in available.items() if there)
        return DeviceChoice(torch.device(best), f"{best} is the fastest device found", may_fall_back=best != "cpu")
    if name not in available:
        raise UsageError(f"unknown device {name!r}", "use --device auto, cpu, cuda or mps")
    if not available[name]:
        raise UsageError(f"this machine offers no {name} device to torch", "use --device auto or --device cpu")
    return DeviceChoice(torch.device(name), f"{name} was asked for")
