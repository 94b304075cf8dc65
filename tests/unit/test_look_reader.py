"""What falls on all drawings of a history is read off them, and falls on a drawing that was not among them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from pigeon_cli.models.colour_maps import (
    Affine,
    ColourPairs,
    Scale,
    Steps,
    Unchanged,
    read_colour_map,
    read_line,
)
from pigeon_cli.models.look_reader import read_look
from pigeon_cli.models.worn_look import WornLook, cut_out
from pigeon_cli.training.data.looks import Look, apply_look
from tests.tiny_drawings import on_white, tiny_drawings

TINT = {"kind": "tint", "colour": [0.9, 0.3, 0.2], "strength": 0.6}
MARGIN = {"kind": "margin", "scale": 0.62}
TILT = {"kind": "tilt", "degrees": -20.0}
LARGE = {"kind": "pixelation", "cells": 21}
SOFT = {"kind": "softness", "radius": 0.018}
SHADOW = {"kind": "shadow", "shift": [0.04, 0.04], "blur": 0.02, "colour": [0.2, 0.0, 0.4], "opacity": 0.6}
SHEET = {"kind": "background", "colour": [0.8, 0.9, 0.6], "second": [0.6, 0.7, 0.9], "angle": 40.0}
PALETTE = {"kind": "palette", "colours": [[0.2, 0.1, 0.3], [0.8, 0.4, 0.3], [1.0, 0.9, 0.8]], "strength": 0.8}
HUE = {"kind": "hue", "degrees": 140.0, "saturation": 1.0}


def worn(*parts: dict[str, Any]) -> tuple[WornLook, Tensor]:
    """What is read off five drawings in a look, and the mean error of it on others."""
    look = Look.from_json({"parts": list(parts)})
    known, other = tiny_drawings(5), tiny_drawings(4, seed=1)
    found = read_look(cut_out(on_white(known)), apply_look(look, known))
    assert found is not None
    return found, (found.wear(cut_out(on_white(other))) - apply_look(look, other)).abs().mean()


def test_plain_pictures_wear_nothing() -> None:
    found, error = worn()
    assert dataclasses.replace(found, error=0.0) == WornLook(Unchanged(), error=0.0)
    assert float(error) < 0.002


@pytest.mark.parametrize(
    ("parts", "kinds"),
    # A tint is both.
    [
        ((TINT,), {"affine", "scale"}),
        ((HUE,), {"affine"}),
        ((PALETTE,), {"scale"}),
        ((TINT, MARGIN), {"affine", "scale"}),
        ((HUE, TILT), {"affine"}),
    ],
)
def test_colours(parts: tuple[dict[str, Any], ...], kinds: set[str]) -> None:
    found, error = worn(*parts)
    assert found.colours.kind in kinds
    assert float(error) < 0.012


def test_where_drawings_stand() -> None:
    small, small_error = worn(MARGIN)
    turned, turned_error = worn(TILT)
    assert small.degrees == 0 and small.scale == pytest.approx(0.62, abs=0.015)
    assert abs(turned.degrees + 20) <= 1 and turned.scale == pytest.approx(0.94, abs=0.02)
    assert max(float(small_error), float(turned_error)) < 0.012


def test_large_pixels_and_soft_ones() -> None:
    large, large_error = worn(LARGE)
    soft, soft_error = worn(SOFT)
    assert large.cells == 21 and large.softness is None
    assert soft.cells is None and soft.softness == pytest.approx(0.018, abs=0.003)
    assert max(float(large_error), float(soft_error)) < 0.01


def test_what_lies_behind() -> None:
    shaded, shaded_error = worn(SHADOW)
    papered, papered_error = worn(SHEET)
    both, both_error = worn(SHADOW, SHEET)
    assert shaded.shadow is not None and (shaded.shadow.right, shaded.shadow.down) == (5, 5)
    assert shaded.scale == pytest.approx(0.88, abs=0.015) and shaded.sheet is None
    assert papered.sheet is not None and papered.shadow is None
    assert both.sheet is not None and both.shadow is not None
    assert max(float(shaded_error), float(papered_error), float(both_error)) < 0.012


def test_a_picture_of_another_drawing_is_left_out() -> None:
    look = Look.from_json({"parts": [TINT]})
    known, other = tiny_drawings(5), tiny_drawings(6, seed=1)
    drawings = cut_out(on_white(known))
    drawings[4] = cut_out(on_white(other[5:]))[0]
    found = read_look(drawings, apply_look(look, known))
    assert found is not None and found.error < 0.05
    assert float((found.wear(cut_out(on_white(other))) - apply_look(look, other)).abs().mean()) < 0.012


def test_another_look_on_every_picture_is_none() -> None:
    known = tiny_drawings(3)
    looks = [Look.from_json({"parts": [part]}) for part in (HUE, SHEET, MARGIN)]
    liked = torch.cat([apply_look(look, known[row : row + 1]) for row, look in enumerate(looks)])
    found = read_look(cut_out(on_white(known)), liked)
    assert found is not None and found.error > 0.15


def test_blank_paper_says_nothing() -> None:
    blank = torch.ones(2, 3, 128, 128)
    assert read_look(cut_out(blank), blank) is None


def test_the_same_pairs_give_the_same_look() -> None:
    known = tiny_drawings(3)
    liked = apply_look(Look.from_json({"parts": [PALETTE]}), known)
    one, other = (read_look(cut_out(on_white(known)), liked) for _ in range(2))
    assert one is not None and other is not None
    assert torch.equal(one.wear(cut_out(on_white(known))), other.wear(cut_out(on_white(known))))


def pairs(change: Any, count: int = 400) -> ColourPairs:
    plain = torch.rand(count, 3, generator=torch.Generator().manual_seed(3))
    return ColourPairs(plain, change(plain), torch.ones(count), torch.arange(count) % 4)


def test_colour_maps_by_hand() -> None:
    swapped = Affine(torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1], [0.5, 0, 0]]))
    assert swapped(torch.tensor([[0.25, 0.5, 1.0]])).tolist() == [[1.0, 0.25, 1.0]]
    assert Steps(3, 1.0, 0.9)(torch.tensor([[0.2, 0.5, 0.8]]))[0].tolist() == pytest.approx([0.0, 0.45, 0.9])
    ramp = torch.linspace(0, 1, 7).unsqueeze(1).expand(7, 3)
    grey = torch.full((1, 3), 0.4)
    assert Scale(torch.tensor(0.0), ramp)(grey)[0].tolist() == pytest.approx([0.4] * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda plain: plain, "unchanged"),
        (Affine(torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]])), "affine"),
        (
            Scale(torch.tensor(0.2), 0.8 * torch.tensor([[1.0, 0, 0]] * 3 + [[0, 1, 0]] * 2 + [[0, 0, 1.0]] * 2)),
            "scale",
        ),
        (Steps(4, 1.3, 0.92), "steps"),
    ],
)
def test_the_map_that_made_the_pairs_is_found(made: Any, kind: str) -> None:
    some = pairs(made)
    found = read_colour_map(some)
    assert found.kind == kind
    assert float(some.error(found) / some.weights.sum()) < 0.02


INKS = [
    ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
    ((0.98, 0.94, 0.86), (0.35, 0.2, 0.1)),
    ((0.1, 0.15, 0.4), (0.9, 0.95, 1.0)),
]


@pytest.mark.parametrize(("paper", "ink"), INKS)
def test_pictures_in_one_ink_show_between_which_colours_all_are(
    paper: tuple[float, ...], ink: tuple[float, ...]
) -> None:
    grey = on_white(tiny_drawings(5)).mean(1, keepdim=True)
    start, end = (torch.tensor(colour).view(1, 3, 1, 1) for colour in (paper, ink))
    line = read_line(torch.lerp(end, start, grey))
    colours = line(torch.rand(500, 3))
    along = (start - end).flatten()
    off = colours - end.flatten()
    off = off - (off @ along / along.square().sum()).unsqueeze(1) * along
    # But where they would leave what can be shown.
    inside = ((colours > 0) & (colours < 1)).all(1)
    assert int(inside.sum()) > 100 and float(off[inside].abs().max()) < 0.02
    ends = torch.stack([start.flatten(), end.flatten()])
    assert torch.allclose(line(ends), ends, atol=0.02)


def test_pictures_in_colours_and_blank_ones_are_on_no_line() -> None:
    assert isinstance(read_line(on_white(tiny_drawings(5))), Unchanged)
    assert isinstance(read_line(torch.full((5, 3, 128, 128), 0.9)), Unchanged)
