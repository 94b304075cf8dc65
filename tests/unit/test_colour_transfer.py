"""The colours of one picture for the lines of another."""

from __future__ import annotations

import torch

from pigeon_cli.models.colour_transfer import FEWEST, FLOOR, colours_within, in_colours_of, recoloured
from pigeon_cli.models.look_kernels import straight
from pigeon_cli.models.worn_look import cut_out
from tests.tiny_drawings import on_white, tiny_drawings


def test_mean_and_covariance_are_those_of_the_wanted_colours() -> None:
    generator = torch.Generator().manual_seed(0)
    drawing = torch.cat([torch.rand(1, 3, 64, 64, generator=generator), torch.ones(1, 1, 64, 64)], dim=1)
    mixed = torch.tensor([[0.2, 0.1, 0.0], [0.0, 0.2, 0.1], [0.0, 0.0, 0.2]])
    wanted = 0.3 + torch.rand(4000, 3, generator=generator) @ mixed
    changed = recoloured(drawing, wanted)
    found = colours_within(straight(changed)[0][0], changed)
    assert torch.allclose(found.mean(0), wanted.mean(0), atol=1e-3)
    # Their floor is in the covariances.
    assert torch.allclose(torch.cov(found.T), torch.cov(wanted.T), atol=FLOOR)


def test_a_picture_in_its_own_colours_stays() -> None:
    plain = on_white(tiny_drawings(2))
    assert torch.allclose(in_colours_of(plain[0], plain[0]), plain[0], atol=1e-4)
    assert not torch.allclose(in_colours_of(plain[0], plain[1]), plain[0], atol=0.05)


def test_lines_and_paper_stay_and_ink_makes_grey() -> None:
    plain = on_white(tiny_drawings(2))
    ink = (plain[1].mean(0, keepdim=True) > 0.5).float().expand(3, -1, -1)
    found = in_colours_of(plain[0], ink)
    paper = cut_out(plain[:1])[0, 3] == 0
    assert float((found[:, paper] - 1).abs().max()) < 1e-6
    # The floor of the variances leaves a trace of colour.
    assert float((found.amax(0) - found.amin(0)).max()) < 0.2


def test_colours_stay_where_there_is_nothing_to_learn_from() -> None:
    plain = on_white(tiny_drawings(1))[0]
    blank = torch.ones_like(plain)
    assert torch.allclose(in_colours_of(plain, blank), plain, atol=1e-6)
    assert torch.allclose(in_colours_of(blank, plain), blank, atol=1e-6)
    assert torch.equal(recoloured(cut_out(plain[None]), torch.rand(FEWEST - 1, 3)), cut_out(plain[None]))
