"""A look as numbers, for what learns to tell looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pigeon_cli.training.data.looks import TRAIN_KINDS, Look, Parameters


def _hue(parameters: Parameters) -> Sequence[float]:
    angle = math.radians(parameters["degrees"])
    return math.cos(angle), math.sin(angle), parameters["saturation"]


def _palette(parameters: Parameters) -> Sequence[float]:
    dark, *middle, light = parameters["colours"]
    between = [sum(channel) / len(middle) for channel in zip(*middle, strict=True)]
    return [channel - 0.5 for colour in (dark, between, light) for channel in colour]


_NUMBERS: dict[str, tuple[int, Callable[[Parameters], Sequence[float]]]] = {
    "tint": (3, lambda worn: [channel * worn["strength"] for channel in worn["colour"]]),
    "palette": (9, _palette),
    "background": (6, lambda worn: [1 - channel for name in ("colour", "second") for channel in worn[name]]),
    "margin": (1, lambda worn: [1 - worn["scale"]]),
    "tilt": (1, lambda worn: [worn["degrees"]]),
    "pixelation": (1, lambda worn: [1 / worn["cells"]]),
    "shadow": (6, lambda worn: [*worn["shift"], worn["blur"], *worn["colour"]]),
    "softness": (1, lambda worn: [worn["radius"]]),
    "hue": (3, _hue),
    "posterise": (2, lambda worn: [worn["levels"] - 3.5, worn["saturation"]]),
}


def look_numbers(look: Look) -> list[float]:
    """Parameters of every kind that training may see, in the order of ``TRAIN_KINDS``, zero where it is not worn."""
    worn = {part.kind: dict(part.parameters) for part in look.parts}
    numbers: list[float] = []
    for kind in TRAIN_KINDS:
        count, told = _NUMBERS[kind]
        numbers += told(worn[kind]) if kind in worn else [0.0] * count
    return numbers
