"""From what a request takes and what a machine has to load, run and evict steps; needs nothing but Python.

Source: issue 4 section 4, DESIGN.md "The shape of a fast run".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Literal

from pigeon_cli.core.errors import MemoryBudgetError, UsageError
from pigeon_cli.engine.schedule import Room, Step, Workload
from pigeon_cli.weights.disk import readable

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    f"{letter}I": 1024**power for power, letter in enumerate("KMGT", start=1)
}


class Precision(StrEnum):
    """How weights are kept; ``INT8`` and ``NF4`` keep the linear ones of the language model in one byte and in half."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"
    NF4 = "nf4"

    @property
    def width(self) -> int:
        """Bytes of a number that is computed with, and of a weight that is not quantized."""
        return 4 if self is Precision.FLOAT32 else 2


@dataclass(frozen=True)
class Device:
    """Where parts can be: ``free`` bytes can still be had, ``held`` are this process's already and stay."""

    name: str
    free: int
    held: int = 0

    @property
    def most(self) -> int:
        return self.free + self.held


@dataclass(frozen=True)
class Plan:
    """What to do, in order, and what it takes; ``reason`` says in words why this device and this precision."""

    device: str
    precision: Precision
    budget: int
    """Bytes that may be used, those that the process held before included."""
    steps: tuple[Step, ...]
    reason: str

    @property
    def peak(self) -> int:
        """Most bytes at any time, those that the process held before included."""
        return max(step.peak for step in self.steps)

    @property
    def loads(self) -> int:
        return sum(step.kind == "load" for step in self.steps)

    def rows(self, stage: str) -> int:
        """Rows per batch of ``stage``; raises ``KeyError`` for a stage that does not run."""
        return {step.name: step.rows for step in self.steps if step.kind == "run"}[stage]

    def table(self) -> list[tuple[str, str, str, str, str]]:
        """A row per step for people: what, which, bytes afterwards, most bytes meanwhile, rows per batch."""
        return [
            (step.kind, step.name, readable(step.resident), readable(step.peak), str(step.rows or ""))
            for step in self.steps
        ]

    def as_json(self) -> dict[str, Any]:
        """The plan as plain data, with its peak and number of loads."""
        return asdict(self) | {"peak": self.peak, "loads": self.loads}


def parse_size(text: str) -> int:
    """Bytes of ``16GB`` (powers of ten), ``16GiB`` (powers of two), ``1.5 GB``, ``900MB`` or ``1000B``.

    A unit is required and the size must be a byte or more, else :class:`UsageError`.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*((?:[KMGT]I?)?)B\s*", text.upper(), re.ASCII)
    size = int(Decimal(found[1]) * _UNITS[found[2]]) if found else 0
    if size == 0:
        raise UsageError(f"{text!r} is no size of memory", "write it like 16GB, 16GiB or 900MB")
    return size


def precisions(
    dtype: Literal["auto", "float32", "bfloat16"],
    quantize: Literal["none", "int8", "nf4"] | None = None,
    natural: Precision = Precision.BFLOAT16,
) -> tuple[Precision, ...]:
    """What ``--dtype`` and ``--quantize`` (``None``: not said) leave to try, best first.

    ``natural`` is what ``auto`` begins with; a model whose own type is float32 is small and never quantized unasked.
    Raises :class:`UsageError` where the two contradict each other.
    """
    if quantize in ("int8", "nf4"):
        if dtype == "float32":
            raise UsageError(
                f"{quantize} weights compute in bfloat16, not in float32", "leave out --dtype or --quantize"
            )
        return (Precision(quantize),)
    if dtype != "auto":
        return (Precision(dtype),)
    return (natural, Precision.INT8) if quantize is None and natural is Precision.BFLOAT16 else (natural,)


def make_plan(choices: Mapping[Precision, Workload], budget: int | None, devices: Sequence[Device]) -> Plan:
    """The plan for the first device, and there for the first of ``choices``, that the memory suffices for.

    ``budget`` bounds the bytes of this process; ``None`` leaves it all that a device has. Raises
    :class:`MemoryBudgetError` that names the smallest budget that works.
    """
    refused: list[_Attempt] = []
    for device in devices:
        limit = device.most if budget is None else min(budget, device.most)
        for precision, work in choices.items():
            # Files on their way to a CUDA device are held by the main memory instead.
            room = Room(work, limit, device.held, holds_files=not device.name.startswith("cuda"))
            attempt = _Attempt(device, precision, room)
            if (residents := room.residents()) is not None:
                reason = "; ".join(map(str, [attempt, *refused]))
                return Plan(device.name, precision, limit, tuple(room.steps(residents)), reason)
            refused.append(attempt)
    raise _too_small(refused)


@dataclass(frozen=True)
class _Attempt:
    device: Device
    precision: Precision
    room: Room

    def __str__(self) -> str:
        needed, limit = readable(self.room.smallest), readable(self.room.limit)
        return f"{self.precision} on {self.device.name} needs at least {needed}, {limit} may be used"


def _too_small(refused: Sequence[_Attempt]) -> MemoryBudgetError:
    possible = [attempt for attempt in refused if attempt.room.smallest <= attempt.device.most]
    least = min(possible or refused, key=lambda attempt: attempt.room.smallest)
    smallest = f"{least.room.smallest}B ({readable(least.room.smallest)}) as {least.precision} on {least.device.name}"
    message = f"{readable(least.room.limit)} of memory do not suffice; the smallest budget that works is {smallest}"
    hint = f"use --max-memory {least.room.smallest}B or more" if possible else "free memory, or use a larger machine"
    if all(attempt.precision not in (Precision.INT8, Precision.NF4) for attempt in refused):
        hint += "; --quantize int8 takes less"
    return MemoryBudgetError(message, hint)
