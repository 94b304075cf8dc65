"""Drawings cut out of their paper, flat pictures in few bytes, and a drawing laid over what was drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pigeon_cli.core.records import Candidate, TokenMask
from pigeon_cli.models import look_kernels as kernels
from pigeon_cli.models.colour_maps import Unchanged
from pigeon_cli.models.small_pictures import as_image, few_colours, pack_picture, smoothed_flat, unpack_picture
from pigeon_cli.models.worn_look import WornLook, cut_out
from pigeon_cli.pipeline.looks import WornDrawing, in_look, unread_look
from tests.small_memory import small_memory
from tests.tiny_drawings import on_white, tiny_drawings


def test_paper_is_cut_away_and_white_inside_is_not() -> None:
    picture = torch.ones(1, 3, 128, 128)
    picture[:, :, 20:60, 20:60] = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    picture[:, :, 30:50, 30:50] = 1.0
    cut = cut_out(picture)
    assert float(cut[0, 3, 5, 5]) == 0 and float(cut[0, 3, 40, 40]) == 1
    assert torch.allclose(cut[:, :3] + 1 - cut[:, 3:], picture, atol=1e-6)


def test_blank_paper_and_no_paper() -> None:
    assert float(cut_out(torch.ones(1, 3, 128, 128)).abs().max()) == 0
    assert float(cut_out(torch.zeros(1, 3, 128, 128))[:, 3:].min()) == 1


def test_a_look_of_nothing_leaves_drawings_on_white() -> None:
    plain = on_white(tiny_drawings(2))
    assert torch.allclose(WornLook(Unchanged()).wear(cut_out(plain)), plain, atol=1e-6)


def test_small_pictures_come_back() -> None:
    plain = on_white(tiny_drawings(1))[0]
    packed = pack_picture(plain, 6)
    back = torch.from_numpy(np.array(unpack_picture(packed))).permute(2, 0, 1).float() / 255
    assert len(packed) < 1000 and float((back - plain).abs().max()) < 0.01


def test_shaded_pictures_come_back_nearly() -> None:
    shaded = torch.linspace(0, 1, 64).expand(3, 64, 64)
    packed = pack_picture(shaded, None)
    back = torch.from_numpy(np.array(unpack_picture(packed))).permute(2, 0, 1).float() / 255
    assert len(packed) < 1000 and float((back - shaded).abs().mean()) < 0.02


def test_a_memory_tells_small_pictures_by_their_drawings() -> None:
    files = {2: pack_picture(on_white(tiny_drawings(1))[0], 4), 1: pack_picture(torch.zeros(3, 8, 8), 2)}
    memory = small_memory(1, 1, [(0, 0), (0, 1), (0, 2)], pictures=files)
    assert memory.picture(0) is None
    assert [getattr(memory.picture(number), "size", None) for number in (1, 2)] == [(8, 8), (128, 128)]


def test_a_rough_flat_picture_gets_few_colours() -> None:
    rng = np.random.default_rng(0)
    pixels = np.full((64, 64, 3), 240)
    pixels[16:48, 16:48] = (200, 40, 30)
    pixels += rng.integers(-9, 10, pixels.shape)
    smooth = np.asarray(smoothed_flat(Image.fromarray(pixels.astype(np.uint8)), 2))
    assert len(np.unique(smooth.reshape(-1, 3), axis=0)) == 2
    assert abs(smooth[32, 32].astype(int) - (200, 40, 30)).max() < 6
    assert few_colours(Image.new("RGB", (4, 4), "red"), 2).getpixel((0, 0)) == (255, 0, 0)


def candidate(hidden: int = 0) -> Candidate:
    """The first ``hidden`` of 16 patches of the reference are hidden."""
    mask = TokenMask(tuple(range(hidden, 16)), tuple(range(hidden)), patches=tuple(range(16)))
    return Candidate(0.0, 0, (), 16 - hidden, hidden, reference_tokens=mask)


def over(hidden: int, size: int = 128) -> np.ndarray:
    """A black drawing over a white one, the first ``hidden`` of 16 patches of the reference hidden."""
    drawn = [Image.new("RGB", (size, size), "white")]
    black = WornDrawing(Image.new("RGB", (128, 128)), WornLook(Unchanged()))
    return np.asarray(in_look(drawn, [candidate(hidden)], black, 4)[0])


@pytest.mark.parametrize("size", [128, 200])
def test_what_is_seen_of_a_reference_lies_over_what_was_drawn(size: int) -> None:
    assert over(0, size).max() == 0
    assert over(16, size).min() == 255
    half = over(8, size)
    assert half[-1, -1].tolist() == [0, 0, 0]
    # Hidden, as half of the reference is.
    assert half[0, 0].tolist() == pytest.approx([128] * 3, abs=1)


def test_a_reference_that_was_given_stays_where_it_is_in_the_colours_that_each_drawing_has() -> None:
    given = as_image(on_white(tiny_drawings(1))[0])
    sheet = torch.tensor([[0.9, 0.8, 0.7], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    worn = WornDrawing(given, WornLook(Unchanged(), degrees=20, scale=0.5, sheet=sheet), framed=True)
    # They are drawn in one colour each; the sheet is what was read.
    drawn = [Image.new("RGB", (128, 128), colour) for colour in ((40, 80, 200), (200, 60, 60))]
    shown = [np.asarray(image) for image in in_look(drawn, [candidate(), candidate()], worn, 4)]
    inside = cut_out(on_white(tiny_drawings(1)))[0, 3].numpy() > 0.9
    for image, one in zip(shown, drawn, strict=True):
        assert image[0, 0].tolist() == pytest.approx([230, 204, 178], abs=2)
        assert image[inside].mean(0).tolist() == pytest.approx(list(np.asarray(one)[0, 0]), abs=6)


@pytest.mark.parametrize("cells", [None, 16])
def test_where_no_paper_was_read_what_was_drawn_around_the_reference_stays(cells: int | None) -> None:
    plain = on_white(tiny_drawings(1))
    worn = WornDrawing(as_image(plain[0]), WornLook(Unchanged(), cells=cells), framed=True, over=True)
    drawn = Image.linear_gradient("L").resize((128, 128)).convert("RGB")
    shown = np.asarray(in_look([drawn], [candidate()], worn, 4)[0]).astype(int)
    inside = cut_out(plain)[0, 3].numpy()
    if cells is None:
        assert np.abs(shown - np.asarray(drawn))[inside == 0].max() <= 1
    # Lines are the reference's: what is drawn behind it has none from left to right.
    across = np.abs(np.diff(shown.sum(2), axis=1))
    assert across.max() > 60
    blocks = across[64].reshape(-1)[7::8] if cells else across[64]
    assert across[64].sum() == pytest.approx(blocks.sum(), abs=2)


@pytest.mark.parametrize("cells", [None, 16])
def test_what_a_history_alone_tells_of_a_look(cells: int | None) -> None:
    plain = on_white(tiny_drawings(2))
    liked = kernels.pixelation(cut_out(plain), 16) if cells else cut_out(plain)
    cream = torch.tensor([0.98, 0.95, 0.9])
    look = unread_look(liked[:, :3] + cream.view(1, 3, 1, 1) * (1 - liked[:, 3:]))
    assert look.cells == cells
    assert look.sheet is not None and torch.allclose(look.sheet[0], cream, atol=0.01)


@pytest.mark.parametrize("cells", [None, 16])
def test_what_was_drawn_close_around_stays_unless_in_large_pixels(cells: int | None) -> None:
    plain, sheet = on_white(tiny_drawings(1)), torch.tensor([[0.9, 0.8, 0.7], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    worn = WornDrawing(as_image(plain[0]), WornLook(Unchanged(), cells=cells, sheet=sheet), framed=True, over=True)
    alpha = cut_out(plain)[:, 3:]
    beside = (kernels.beside(alpha) > 0)[0, 0].numpy() & (alpha[0, 0].numpy() == 0)
    drawn = np.full((128, 128, 3), 250, dtype=np.uint8)
    drawn[beside] = 0
    shown = np.asarray(in_look([Image.fromarray(drawn)], [candidate()], worn, 4)[0]).astype(int)
    outside = kernels.pixelation(cut_out(plain), 16)[0, 3].numpy() == 0
    found = shown[beside & outside].mean()
    assert found < 130 if cells is None else found == pytest.approx(204, abs=3)


def test_what_was_drawn_comes_on_the_paper_that_was_read() -> None:
    plain, sheet = on_white(tiny_drawings(1)), torch.tensor([[0.9, 0.8, 0.7], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    worn = WornDrawing(as_image(plain[0]), WornLook(Unchanged(), sheet=sheet), framed=True, over=True)
    drawn = np.full((128, 128, 3), 250, dtype=np.uint8)
    drawn[2:8, 2:8] = 20
    inside = cut_out(plain)[0, 3].numpy() > 0
    drawn[inside] = (200, 60, 40)
    shown = np.asarray(in_look([Image.fromarray(drawn)], [candidate()], worn, 4)[0]).astype(int)
    assert np.abs(shown[~inside] - (230, 204, 178)).max() <= 2
    assert shown[inside].mean(0).tolist() == pytest.approx([200, 60, 40], abs=8)
    # Nothing would be seen of it in the colour of the paper: then it keeps its own.
    drawn[inside] = (231, 203, 179)
    seen = np.asarray(in_look([Image.fromarray(drawn)], [candidate()], worn, 4)[0]).astype(int)
    assert np.abs(seen[inside] - (np.asarray(as_image(plain[0]))[inside])).mean() < 20


@pytest.mark.parametrize("hidden", [0, 4, 16])
def test_a_history_without_colours_gets_none(hidden: int) -> None:
    plain = on_white(tiny_drawings(3))
    look = unread_look(plain.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    worn = WornDrawing(as_image(plain[0]), look, framed=True, over=True)
    drawn = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    shown = np.asarray(in_look([Image.fromarray(drawn)], [candidate(hidden)], worn, 4)[0]).astype(int)
    assert (shown.max(2) - shown.min(2)).max() <= 2
