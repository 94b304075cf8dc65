"""What the UNet sees of liked pictures: who counts, who does not, and that hidden places say nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from pigeon_cli.models.diffusion import Beside, GridUNet, build_unet, seen_picture
from tests.tiny_model import WIDTH, tiny_spec

SPEC = tiny_spec(320)
PICTURES = SPEC.diffusion.history_pictures
TOKENS = 4
"""Of a picture of 8 x 8 places."""


def unet() -> GridUNet:
    torch.manual_seed(3)
    built = build_unet(SPEC.diffusion, WIDTH)
    assert isinstance(built, GridUNet)
    return built.eval()


def seen(count: int, seed: int = 0) -> Tensor:
    """One history [1, count, 9, 8, 8] of pictures that are wholly seen, beside plain drawings of them."""
    stream = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, count, 8, 8, 8, generator=stream)
    return torch.cat([latents, torch.ones(1, count, 1, 8, 8)], dim=2)


def test_tokens_stand_behind_the_context_a_few_for_each_picture() -> None:
    context, pooled = torch.randn(1, 16, WIDTH), torch.randn(1, WIDTH)
    attended, told = unet().attend(context, pooled, Beside(history=seen(PICTURES)))
    assert attended.shape == (1, 16 + PICTURES * TOKENS, WIDTH)
    assert torch.equal(attended[:, :16], context)
    assert not torch.allclose(told, pooled)


def test_no_history_and_one_of_which_nothing_is_seen_say_the_same_and_nothing() -> None:
    context, pooled, model = torch.randn(1, 16, WIDTH), torch.randn(1, WIDTH), unet()
    none = model.attend(context, pooled)
    for hidden in (torch.zeros_like(seen(PICTURES)), torch.zeros_like(seen(1))):
        same = model.attend(context, pooled, Beside(history=hidden))
        assert torch.equal(none[0], same[0])
        assert torch.equal(none[1], same[1])
    assert not none[0][:, 16:].any()
    assert torch.equal(none[1], model.attend(context, pooled, Beside(torch.randn(1, 4, 8, 8)))[1])


def test_a_short_history_is_one_with_pictures_of_which_nothing_is_seen() -> None:
    context, pooled, model = torch.randn(1, 16, WIDTH), torch.randn(1, WIDTH), unet()
    short = seen(1)
    padded = torch.cat([short, torch.zeros(1, PICTURES - 1, 9, 8, 8)], dim=1)
    one, other = (model.attend(context, pooled, Beside(history=each)) for each in (short, padded))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_the_order_of_liked_pictures_moves_their_tokens_and_changes_nothing_else() -> None:
    context, pooled, model = torch.randn(1, 16, WIDTH), torch.randn(1, WIDTH), unet()
    history = seen(PICTURES)
    one, other = (model.attend(context, pooled, Beside(history=each)) for each in (history, history.flip(1)))
    tokens, turned = (each[0][:, 16:].unflatten(1, (PICTURES, TOKENS)) for each in (one, other))
    assert torch.allclose(tokens.flip(1), turned, atol=1e-5)
    assert torch.allclose(one[1], other[1], atol=1e-5)


def test_rows_of_a_batch_keep_their_own_history() -> None:
    both = Beside(history=torch.cat([seen(2, 1), seen(2, 2)]))
    assert both.rows(1, 2).history is not None
    assert torch.equal(both.rows(1, 2).history, seen(2, 2))  # type: ignore[arg-type]


def test_what_is_hidden_of_a_picture_is_hidden_of_its_plain_drawing() -> None:
    latents, plain, keep = torch.ones(1, 4, 8, 8), torch.full((1, 4, 8, 8), 2.0), torch.ones(1, 16)
    keep[0, 0] = 0
    picture = seen_picture(latents, keep, plain)
    assert picture.shape == (1, 9, 8, 8)
    assert picture[0, :, 4, 4].tolist() == [1.0] * 4 + [2.0] * 4 + [1.0]
    assert not picture[0, :, :2, :2].any()
    assert torch.equal(seen_picture(latents, keep), picture[:, [0, 1, 2, 3, 8]])


def test_a_plain_drawing_beside_a_picture_changes_what_is_said_of_it() -> None:
    context, pooled, model = torch.randn(1, 16, WIDTH), torch.randn(1, WIDTH), unet()
    beside, alone = seen(1), seen(1)
    alone[:, :, 4:8] = 0
    one, other = (model.attend(context, pooled, Beside(history=each)) for each in (beside, alone))
    assert not torch.allclose(one[0], other[0])
    assert not torch.allclose(one[1], other[1])
