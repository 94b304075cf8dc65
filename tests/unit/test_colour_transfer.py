"""The colours of one picture for the lines of another."""

from __future__ import annotations

import torch

from pigeon_cli.models.colour_transfer import (
    FEWEST,
    FLOOR,
    ColourSpread,
    in_colours,
    recoloured,
    spread_of,
    spread_within,
)
from pigeon_cli.models.look_kernels import straight
from pigeon_cli.models.worn_look import cut_out
from tests.tiny_drawings import on_white, tiny_drawings

GREY = ColourSpread(torch.full((3,), 0.5), torch.full((3, 3), 0.05))


def test_mean_and_covariance_become_those_that_are_wanted() -> None:
    generator = torch.Generator().manual_seed(0)
    drawing = torch.cat([torch.rand(1, 3, 64, 64, generator=generator), torch.ones(1, 1, 64, 64)], dim=1)
    mixed = torch.tensor([[0.2, 0.1, 0.0], [0.0, 0.2, 0.1], [0.0, 0.0, 0.2]])
    colours = 0.3 + torch.rand(4000, 3, generator=generator) @ mixed
    wanted = ColourSpread(colours.mean(0), torch.cov(colours.T))
    changed = recoloured(drawing, wanted)
    found = spread_within(straight(changed)[0][0], changed)
    assert found is not None
    assert torch.allclose(found.mean.float(), wanted.mean, atol=1e-3)
    # Their floor is in the covariances.
    assert torch.allclose(found.covariance.float(), wanted.covariance, atol=FLOOR)


def test_a_picture_in_its_own_colours_stays() -> None:
    plain = on_white(tiny_drawings(2))
    own, other = map(spread_of, plain)
    assert own is not None and other is not None
    assert torch.allclose(in_colours(plain[0], own), plain[0], atol=1e-4)
    assert not torch.allclose(in_colours(plain[0], other), plain[0], atol=0.05)


def test_lines_and_paper_stay_and_ink_makes_grey() -> None:
    plain = on_white(tiny_drawings(1))[0]
    found = in_colours(plain, GREY)
    paper = cut_out(plain[None])[0, 3] == 0
    assert float((found[:, paper] - 1).abs().max()) < 1e-6
    # The floor of the variances leaves a trace of colour.
    assert float((found.amax(0) - found.amin(0)).max()) < 0.5 * float((plain.amax(0) - plain.amin(0)).max())


def test_of_hardly_anything_nothing_is_told_and_its_colours_stay() -> None:
    drawing = torch.zeros(1, 4, 32, 32)
    drawing[0, :, 0, : FEWEST - 1 - 32] = drawing[0, :, 1] = 1.0
    assert spread_within(torch.rand(3, 32, 32), drawing) is None
    assert torch.equal(recoloured(drawing, GREY), drawing)
    blank = torch.ones(3, 32, 32)
    assert spread_of(blank) is None and torch.equal(in_colours(blank, GREY), blank)
