"""The taste of a history: what is counted, what a mask takes away, and that the image generator listens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pigeon_cli.core.records import TokenMask
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.models.diffusion import Beside, GridUNet, build_unet
from pigeon_cli.models.taste import COUNTED, EDGES, LEVELS, picture_statistics
from pigeon_cli.pipeline.draw import draw
from pigeon_cli.pipeline.session import Session
from pigeon_cli.pipeline.taste import mean_taste, read_tastes
from pigeon_cli.training.data.look_numbers import look_numbers
from pigeon_cli.training.data.looks import PLAIN, Look
from pigeon_cli.weights.store import ModelFolder
from tests.tiny_model import IMAGE, TASTE_WIDTH, WIDTH, tiny_spec, write_tiny_model

SPEC = tiny_spec(300)
FEATURES = torch.randn(1, 16, WIDTH)


def counted(image: torch.Tensor) -> torch.Tensor:
    """Statistics [COUNTED] of one image [3, S, S] without those of features."""
    return picture_statistics(image[None], FEATURES)[0, 2 * WIDTH :]


def test_features_are_told_by_mean_and_deviation() -> None:
    found = picture_statistics(torch.rand(1, 3, IMAGE, IMAGE), FEATURES)[0]
    assert len(found) == 2 * WIDTH + COUNTED
    assert torch.allclose(found[:WIDTH], FEATURES[0].mean(0))
    assert torch.allclose(found[WIDTH : 2 * WIDTH], FEATURES[0].std(0))


def test_one_colour_is_one_bin_and_has_no_edges() -> None:
    found = counted(torch.tensor([1.0, 0.0, 0.5])[:, None, None].expand(3, IMAGE, IMAGE))
    histogram, rest = found[: LEVELS**3], found[LEVELS**3 :]
    assert histogram.nonzero()[:, 0].tolist() == [4 * LEVELS**2 + 0 * LEVELS + 2]
    assert float(histogram.max()) == pytest.approx(1)
    # Three borders and the whole are of that colour; nothing differs from it.
    assert torch.allclose(rest[:12].view(4, 3), torch.tensor([1.0, 0.0, 0.5]))
    assert torch.allclose(rest[12:15], torch.zeros(3))
    assert torch.allclose(rest[15:].view(-1, len(EDGES) + 1)[:, 0], torch.ones(6))


def test_an_edge_is_counted_by_its_strength() -> None:
    weak, strong = (torch.zeros(3, IMAGE, IMAGE) for _ in range(2))
    weak[:, :, IMAGE // 2 :], strong[:, :, IMAGE // 2 :] = 0.01, 1.0
    first, second = (counted(image)[LEVELS**3 + 15 :][: len(EDGES) + 1].nonzero()[:, 0] for image in (weak, strong))
    assert first.tolist() == [0, 2]
    assert second.tolist() == [0, len(EDGES)]


def test_an_image_counts_by_what_the_mask_kept_of_it() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]])
    whole, half, gone = TokenMask((0, 1), ()), TokenMask((0,), (1,)), TokenMask((), (0, 1))
    assert mean_taste(None, [whole]) is None
    for masks, wanted in (
        ([whole, whole, whole], [1 / 3, 5 / 3]),
        ([whole, whole, gone], [0.5, 0.5]),
        ([whole, half, gone], [2 / 3, 1 / 3]),
    ):
        found = mean_taste(vectors, masks)
        assert found is not None
        assert torch.allclose(found, torch.tensor(wanted))


def test_the_unet_is_told_a_taste_and_recolours_the_reference_by_it() -> None:
    unet = build_unet(SPEC.diffusion, WIDTH)
    assert isinstance(unet, GridUNet)
    torch.nn.init.normal_(unet.tells.weight)
    torch.nn.init.normal_(unet.recolours.weight)
    context, pooled, taste = torch.randn(2, 16, WIDTH), torch.randn(2, WIDTH), torch.randn(2, TASTE_WIDTH)
    reference = torch.randn(2, 4, 8, 8)
    reference[:, :, :2, :2] = 0
    untold, told = Beside(reference), Beside(reference, taste)

    def pool(beside: Beside) -> torch.Tensor:
        return unet.attend(context, pooled, beside)[1]

    assert torch.equal(pool(untold), pool(Beside()))
    assert torch.equal(pool(untold), pool(Beside(reference, torch.zeros_like(taste))))
    assert not torch.allclose(pool(told), pool(untold))
    seen = unet.project(context, told)[:, 4:]
    matrix = unet.recolours(taste).view(2, 4, 4)
    wanted = reference + torch.einsum("bchw,bcd->bdhw", reference, matrix)
    assert torch.allclose(seen, wanted, atol=1e-5)
    # What is hidden stays hidden.
    assert torch.equal(seen[:, :, :2, :2], torch.zeros(2, 4, 2, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    path: Path = tmp_path_factory.mktemp("model")
    return write_tiny_model(path)


def picture(colour: tuple[int, int, int], seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 40, (IMAGE, IMAGE, 3))
    return Image.fromarray((np.array(colour) + noise).astype(np.uint8))


def test_pictures_of_a_taste_are_read_each_by_itself(folder: ModelFolder) -> None:
    parts = Session(folder, choose_device("cpu")).parts
    images = [picture((200, 0, 0)), picture((0, 0, 200))]
    with torch.inference_mode():
        both, alone = read_tastes(parts, images), read_tastes(parts, images[1:])
    assert both is not None and alone is not None
    assert both.shape == (2, TASTE_WIDTH)
    assert torch.allclose(both[1], alone[0], atol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_what_is_drawn_follows_the_taste(folder: ModelFolder) -> None:
    session = Session(folder, choose_device("cpu"))
    outcome = session.personalize([picture((200, 0, 0))], picture((9, 9, 9)), dials=[0.0], samples=1, seed=3)
    candidate, settings, stages = outcome.candidates[0], outcome.settings, outcome.stages
    assert stages

    def drawn(taste: torch.Tensor | None) -> bytes:
        with torch.inference_mode():
            stream = torch.Generator().manual_seed(0)
            return draw(session.parts, [candidate], [stream], settings, None, taste)[0].tobytes()

    assert len({drawn(None), drawn(torch.zeros(TASTE_WIDTH)), drawn(torch.ones(TASTE_WIDTH))}) == 2


def test_what_is_drawn_follows_the_liked_pictures_as_far_as_they_are_kept(folder: ModelFolder) -> None:
    session, red = Session(folder, choose_device("cpu")), picture((200, 0, 0))
    outcome = session.personalize([red], picture((9, 9, 9)), dials=[0.0], samples=1, seed=3)
    candidate, settings, whole = outcome.candidates[0], outcome.settings, outcome.history_tokens[0]
    tokens = (*whole.kept, *whole.dropped)
    gone = replace(whole, kept=(), dropped=tokens)
    half = replace(whole, kept=tokens[: len(tokens) // 2], dropped=tokens[len(tokens) // 2 :])

    def drawn(*history: tuple[Image.Image, TokenMask]) -> bytes:
        with torch.inference_mode():
            stream = torch.Generator().manual_seed(0)
            return draw(session.parts, [candidate], [stream], settings, history=history)[0].tobytes()

    assert drawn() == drawn((red, gone))
    assert len({drawn(), drawn((red, half)), drawn((red, whole)), drawn((picture((0, 0, 200)), whole))}) == 4


def test_a_look_as_numbers_is_zero_but_for_what_it_wears() -> None:
    assert not any(look_numbers(PLAIN))
    look = Look.from_json({"parts": [{"kind": "margin", "scale": 0.6}]})
    numbers = look_numbers(look)
    assert len(numbers) == len(look_numbers(PLAIN))
    assert [number for number in numbers if number] == [pytest.approx(0.4)]
    turned = look_numbers(Look.from_json({"parts": [{"kind": "hue", "degrees": 180, "saturation": 1.0}]}))
    assert [number for number in turned if abs(number) > 1e-9] == [pytest.approx(-1), pytest.approx(1)]
