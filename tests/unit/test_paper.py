"""The paper of a history is told by its pictures' borders, and comes behind what is drawn for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pigeon_cli.models.paper import on_paper, read_paper, stands_out
from pigeon_cli.models.worn_look import cut_out, slopes
from pigeon_cli.training.data.looks import Look, apply_look
from tests.tiny_drawings import on_white, tiny_drawings

CREAM = (0.98, 0.95, 0.9)


def papered(colour: tuple[float, ...], second: tuple[float, ...] | None = None, angle: float = 0.0) -> Tensor:
    """Five drawings on a sheet of a colour that fades to a second one."""
    sheet = {"kind": "background", "colour": list(colour), "second": list(second or colour), "angle": angle}
    return apply_look(Look.from_json({"parts": [sheet]}), tiny_drawings(5))


@pytest.mark.parametrize(("colour", "second"), [(CREAM, None), ((0.05, 0.03, 0.12), None), (CREAM, (0.7, 0.8, 0.95))])
def test_a_sheet_is_read_off_borders(colour: tuple[float, ...], second: tuple[float, ...] | None) -> None:
    pictures = papered(colour, second)
    sheet = read_paper(pictures)
    assert sheet is not None
    behind = torch.einsum("kc,khw->chw", sheet, slopes(128))
    blank = papered(colour, second)[0] * 0 + behind
    for row, column in ((0, 0), (0, 127), (127, 0), (127, 127)):
        assert torch.allclose(blank[:, row, column], pictures[:, :, row, column].median(0).values, atol=0.03)


def test_white_paper_is_paper() -> None:
    sheet = read_paper(on_white(tiny_drawings(5)))
    assert sheet is not None and torch.allclose(sheet[0], torch.ones(3), atol=0.01)


def test_one_picture_of_five_may_fill_its_frame_and_no_more() -> None:
    pictures = papered(CREAM)
    pictures[0] = torch.rand(3, 128, 128)
    assert read_paper(pictures) is not None
    pictures[1] = torch.rand(3, 128, 128)
    assert read_paper(pictures) is None


def test_sheets_of_many_colours_are_no_paper() -> None:
    assert read_paper(torch.rand(5, 3, 1, 1).expand(-1, -1, 128, 128)) is None


def test_a_picture_on_other_paper_keeps_what_is_beside_the_drawing() -> None:
    alpha = torch.zeros(1, 1, 128, 128)
    alpha[:, :, 40:80, 40:80] = 1
    picture = torch.full((1, 3, 128, 128), 0.9)
    picture[:, :, 38:40, 40:80] = 0.2
    picture[:, :, 10:20, 10:20] = 0.2
    sheet = torch.full((1, 3, 128, 128), 0.5)
    found = on_paper(picture, sheet, alpha)
    assert float(found[:, :, 38:40, 50:70].max()) < 0.35
    # Too far off, and its own paper.
    assert torch.equal(found[:, :, 10:20, 10:20], sheet[:, :, 10:20, 10:20])
    assert torch.equal(found[:, :, 82:84, 50:70], sheet[:, :, 82:84, 50:70])


def test_a_drawing_in_the_colour_of_its_sheet_is_not_seen() -> None:
    drawing = cut_out(on_white(tiny_drawings(1)))
    assert stands_out(drawing, torch.ones(1, 3, 128, 128))
    faint = torch.cat([drawing[:, 3:].expand(-1, 3, -1, -1) * 0.95, drawing[:, 3:]], dim=1)
    assert not stands_out(faint, torch.ones(1, 3, 128, 128))
    assert stands_out(faint, torch.zeros(1, 3, 128, 128))
