"""Looks: transforms that fall alike on everything a user likes, and never on a reference (DESIGN.md section 3).

Twelve kinds; a look combines one or two. Ten are trained, *duotone* and *outline* are kept out of training to see
whether a look that was never seen is read off the history.
"""

from __future__ import annotations

import colorsys
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from pigeon_cli.core.errors import InputError
from pigeon_cli.models import look_kernels as kernels

Parameters: TypeAlias = dict[str, Any]

KINDS = (
    "tint",
    "palette",
    "background",
    "margin",
    "tilt",
    "pixelation",
    "shadow",
    "softness",
    "hue",
    "posterise",
    "duotone",
    "outline",
)
HELD_OUT_KINDS = ("duotone", "outline")
TRAIN_KINDS = tuple(kind for kind in KINDS if kind not in HELD_OUT_KINDS)
_GEOMETRIC_KINDS = frozenset({"margin", "tilt"})
_COLOUR_KINDS = frozenset({"tint", "palette", "hue", "posterise", "duotone"})
_BLIND_TO_BLACK = frozenset({"hue", "posterise"})
_PLAIN_SHARE = 0.1
_SINGLE_SHARE = 0.55


@dataclass(frozen=True)
class LookPart:
    """One kind with its parameters: numbers, or colours as [r, g, b] in 0..1; lengths are shares of the image side."""

    kind: str
    parameters: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Look:
    """No parts (plain), one, or two of different kinds, already in the order in which they are applied."""

    parts: tuple[LookPart, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of the parts; () is plain."""
        return tuple(part.kind for part in self.parts)

    @property
    def is_held_out(self) -> bool:
        """True when a kind of it never appears in training."""
        return any(kind in HELD_OUT_KINDS for kind in self.kinds)

    def to_json(self) -> dict[str, Any]:
        """A JSON object: {"parts": [{"kind": ..., parameters}]}."""
        return {"parts": [{"kind": part.kind, **_thawed(part.parameters)} for part in self.parts]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Look:
        """The look of ``to_json``; InputError for a kind that does not exist."""
        parts = []
        for entry in value["parts"]:
            if entry.get("kind") not in KINDS:
                raise InputError(f"unknown kind of look: {entry.get('kind')!r}", f"use one of: {', '.join(KINDS)}")
            parts.append(_part(entry["kind"], {key: entry[key] for key in entry if key != "kind"}))
        return cls(tuple(parts))


PLAIN = Look()


def draw_look(generator: random.Random, kinds: Sequence[str] = TRAIN_KINDS, monochrome: bool = False) -> Look:
    """A random look of one or two of ``kinds`` (two never both recolour); one in ten is plain.

    With held-out ``kinds`` only, every look has exactly one part and none is plain. For ``monochrome`` drawings the
    kinds that leave black as it is are not drawn.
    """
    kinds = [kind for kind in kinds if not (monochrome and kind in _BLIND_TO_BLACK)]
    trained = [kind for kind in kinds if kind in TRAIN_KINDS]
    if trained and generator.random() < _PLAIN_SHARE:
        return PLAIN
    chosen = [generator.choice(list(kinds))]
    if trained and generator.random() >= _SINGLE_SHARE:
        taken_colour = chosen[0] in _COLOUR_KINDS
        others = [kind for kind in kinds if kind != chosen[0] and not (taken_colour and kind in _COLOUR_KINDS)]
        if others:
            chosen.append(generator.choice(others))
    chosen.sort(key=_ORDER.index)
    return Look(tuple(_part(kind, _DRAW[kind](generator)) for kind in chosen))


def geometry_of(look: Look) -> Look:
    """What of ``look`` moves places: a drawing that wears only this stands where the wanted one stands."""
    return Look(tuple(part for part in look.parts if part.kind in _GEOMETRIC_KINDS))


def apply_look(look: Look, rgba: torch.Tensor) -> torch.Tensor:
    """One ``look`` on a batch: uint8 (0..255) or float (0..1) [B, 4, S, S] -> float32 [B, 3, S, S] in 0..1, over white.

    Alpha is straight on the way in. Runs on the tensor's device.
    """
    pixels = rgba.float() / 255 if rgba.dtype == torch.uint8 else rgba.float()
    # Premultiplied from here on: moving, blurring and shrinking then never drag in colours of invisible pixels.
    image = torch.cat([pixels[:, :3] * pixels[:, 3:], pixels[:, 3:]], dim=1)
    # Training draws pictures inside autocast; colours must not be rounded to bf16.
    with torch.autocast(image.device.type, enabled=False):
        for part in look.parts:
            image = _APPLY[part.kind](image, **_thawed(part.parameters))
    return (image[:, :3] + (1 - image[:, 3:])).clamp(0, 1)


def apply_looks(looks: Sequence[Look], rgba: torch.Tensor) -> torch.Tensor:
    """One look per image: uint8 or float [B, 4, S, S] with B ``looks`` -> float32 [B, 3, S, S] in 0..1, over white."""
    if len(looks) != len(rgba):
        raise ValueError(f"{len(looks)} looks for {len(rgba)} images")
    rows: defaultdict[Look, list[int]] = defaultdict(list)
    for row, look in enumerate(looks):
        rows[look].append(row)
    result = torch.empty(len(rgba), 3, *rgba.shape[2:], device=rgba.device)
    for look, members in rows.items():
        result[members] = apply_look(look, rgba[members])
    return result


def _part(kind: str, parameters: Parameters) -> LookPart:
    return LookPart(kind, tuple(sorted((key, _frozen(value)) for key, value in parameters.items())))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def _thawed(parameters: tuple[tuple[str, Any], ...]) -> Parameters:
    return {key: _as_list(value) for key, value in parameters}


def _as_list(value: Any) -> Any:
    return [_as_list(item) for item in value] if isinstance(value, tuple) else value


def _colour(generator: random.Random, saturation: tuple[float, float], value: tuple[float, float]) -> list[float]:
    rgb = colorsys.hsv_to_rgb(generator.random(), generator.uniform(*saturation), generator.uniform(*value))
    return [round(channel, 4) for channel in rgb]


def _number(generator: random.Random, low: float, high: float) -> float:
    return round(generator.uniform(low, high), 4)


def _draw_tint(generator: random.Random) -> Parameters:
    return {"colour": _colour(generator, (0.6, 0.95), (0.7, 1.0)), "strength": _number(generator, 0.4, 0.65)}


def _draw_palette(generator: random.Random) -> Parameters:
    dark, light = _colour(generator, (0.5, 0.9), (0.15, 0.4)), _colour(generator, (0.05, 0.3), (0.92, 1.0))
    middle = [_colour(generator, (0.45, 0.9), (0.6, 0.95)) for _ in range(generator.choice((1, 2)))]
    return {"colours": [dark, *sorted(middle, key=sum), light], "strength": _number(generator, 0.7, 0.9)}


def _draw_background(generator: random.Random) -> Parameters:
    first = _colour(generator, (0.15, 0.7), (0.75, 1.0))
    second = _colour(generator, (0.15, 0.7), (0.75, 1.0)) if generator.random() < 0.4 else first
    return {"colour": first, "second": second, "angle": _number(generator, 0, 360)}


def _draw_margin(generator: random.Random) -> Parameters:
    return {"scale": _number(generator, 0.5, 0.78)}


def _draw_tilt(generator: random.Random) -> Parameters:
    return {"degrees": _number(generator, 12, 35) * generator.choice((-1, 1))}


def _draw_pixelation(generator: random.Random) -> Parameters:
    return {"cells": generator.choice((16, 21, 26, 32))}


def _draw_shadow(generator: random.Random) -> Parameters:
    shift = [_number(generator, 0.03, 0.06) * generator.choice((-1, 1)), _number(generator, 0.03, 0.06)]
    colour = generator.choice(([0.0, 0.0, 0.0], _colour(generator, (0.5, 0.9), (0.3, 0.7))))
    return {"shift": shift, "blur": _number(generator, 0.01, 0.03), "colour": colour, "opacity": 0.6}


def _draw_softness(generator: random.Random) -> Parameters:
    return {"radius": _number(generator, 0.011, 0.022)}


def _draw_hue(generator: random.Random) -> Parameters:
    return {"degrees": _number(generator, 60, 300), "saturation": generator.choice((0.7, 1.0, 1.4))}


def _draw_posterise(generator: random.Random) -> Parameters:
    return {"levels": generator.choice((3, 4)), "saturation": _number(generator, 1.2, 1.6)}


def _draw_duotone(generator: random.Random) -> Parameters:
    return {"dark": _colour(generator, (0.6, 1.0), (0.15, 0.45)), "light": _colour(generator, (0.15, 0.6), (0.9, 1.0))}


def _draw_outline(generator: random.Random) -> Parameters:
    return {"colour": _colour(generator, (0.6, 1.0), (0.4, 0.95)), "width": _number(generator, 0.025, 0.05)}


_DRAW: dict[str, Callable[[random.Random], Parameters]] = {
    "tint": _draw_tint,
    "palette": _draw_palette,
    "background": _draw_background,
    "margin": _draw_margin,
    "tilt": _draw_tilt,
    "pixelation": _draw_pixelation,
    "shadow": _draw_shadow,
    "softness": _draw_softness,
    "hue": _draw_hue,
    "posterise": _draw_posterise,
    "duotone": _draw_duotone,
    "outline": _draw_outline,
}
_APPLY: dict[str, Callable[..., torch.Tensor]] = {
    "tint": kernels.tint,
    "palette": kernels.palette,
    "background": kernels.background,
    "margin": kernels.margin,
    "tilt": kernels.tilt,
    "pixelation": kernels.pixelation,
    "shadow": kernels.shadow,
    "softness": kernels.softness,
    "hue": kernels.hue,
    "posterise": kernels.posterise,
    "duotone": kernels.duotone,
    "outline": kernels.outline,
}
# Colours first, then shape, then what surrounds the shape, so that a background is never tinted, tilted or blurred.
_ORDER = (
    *("tint", "palette", "hue", "posterise", "duotone"),
    *("margin", "tilt", "pixelation", "softness", "outline", "shadow", "background"),
)
