"""What a small model's image generator sees of the reference: its latents, but in no place that is hidden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pigeon_cli.core.records import Candidate, TokenMask
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.models.colour_maps import Unchanged
from pigeon_cli.models.diffusion import (
    Beside,
    GridUNet,
    build_unet,
    build_vae,
    encode_latents,
    restore_latents,
    visible,
)
from pigeon_cli.models.worn_look import WornLook
from pigeon_cli.pipeline import draw as drawing
from pigeon_cli.pipeline.asked import Asked
from pigeon_cli.pipeline.decode import seen_latents
from pigeon_cli.pipeline.draw import draw
from pigeon_cli.pipeline.looks import WornDrawing
from pigeon_cli.pipeline.session import Session
from pigeon_cli.pipeline.settings import resolve
from tests.tiny_model import IMAGE, STYLE_TOKENS, WIDTH, tiny_spec, write_tiny_model

SPEC = tiny_spec(300)
PLACES = SPEC.tokenizer.patches


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (IMAGE, IMAGE, 3), dtype=np.uint8))


def candidate(*hidden: int) -> Candidate:
    """One whose reference has all its style tokens, and all places but the ``hidden`` ones."""
    patches = (*[-1] * STYLE_TOKENS, *range(PLACES))
    dropped = tuple(STYLE_TOKENS + place for place in hidden)
    kept = tuple(token for token in range(len(patches)) if token not in dropped)
    mask = TokenMask(kept, dropped, (), tuple([3] * len(patches)), patches)
    return Candidate(0.0, 0, tuple([3] * len(patches)), len(kept), len(dropped), reference_tokens=mask)


def test_a_hidden_place_is_zero_and_the_others_are_as_they_were() -> None:
    latents, keep = torch.randn(1, 4, 8, 8), torch.ones(2, 16)
    keep[1, 5] = 0
    whole, part = visible(latents, keep)
    assert torch.equal(whole, latents[0])
    # Place 5 is the second of the second row, and two by two cells large.
    assert torch.equal(part[:, 2:4, 2:4], torch.zeros(4, 2, 2))
    part[:, 2:4, 2:4] = latents[0, :, 2:4, 2:4]
    assert torch.equal(part, latents[0])


def test_latents_are_scaled_as_the_image_generator_reads_them() -> None:
    vae = build_vae(replace(SPEC.diffusion, vae={**SPEC.diffusion.vae, "scaling_factor": 0.5})).eval()
    images = torch.rand(2, 3, IMAGE, IMAGE)
    with torch.no_grad():
        plain = vae.encode(images * 2 - 1).latent_dist.mode()
    assert torch.allclose(encode_latents(vae, images), plain * 0.5)
    assert torch.allclose(restore_latents(vae, encode_latents(vae, images)), plain)


def test_the_unet_reads_the_reference_behind_the_grid() -> None:
    unet = build_unet(SPEC.diffusion, WIDTH)
    assert isinstance(unet, GridUNet)
    context, shown = torch.randn(2, 16, WIDTH), torch.randn(2, 4, 8, 8)
    blind, seeing = unet.project(context), unet.project(context, Beside(shown))
    assert torch.equal(seeing[:, :4], blind[:, :4])
    assert torch.equal(seeing[:, 4:], shown)
    assert torch.equal(blind[:, 4:], torch.zeros_like(shown))
    without = build_unet(
        replace(SPEC.diffusion, reference_channels=0, taste_width=0, unet={**SPEC.diffusion.unet, "in_channels": 8}),
        WIDTH,
    )
    assert isinstance(without, GridUNet)
    assert without.project(context, Beside(shown)).shape == (2, 4, 8, 8)


def test_a_mask_decides_what_is_seen() -> None:
    vae = build_vae(SPEC.diffusion).eval()
    whole, part = (each.reference_tokens for each in (candidate(), candidate(0, 15)))
    assert whole is not None and part is not None
    seen = seen_latents(vae, SPEC.diffusion, picture(0), [whole, part], PLACES)
    assert bool((seen[0] != 0).all())
    assert bool((seen[1, :, :2, :2] == 0).all()) and bool((seen[1, :, 6:, 6:] == 0).all())
    seen[1, :, :2, :2], seen[1, :, 6:, 6:] = seen[0, :, :2, :2], seen[0, :, 6:, 6:]
    assert torch.equal(seen[0], seen[1])


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    path: Path = tmp_path_factory.mktemp("model")
    return Session(write_tiny_model(path), choose_device("cpu"))


def drawn(session: Session, each: Candidate, reference: Image.Image | None) -> bytes:
    stream = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        asked = None if reference is None else Asked((), reference, "", ())
    return draw(session.parts, [each], [stream], resolve(session.model, {}), asked)[0].tobytes()


def test_the_same_codes_are_drawn_after_what_is_seen_of_the_reference(session: Session) -> None:
    assert drawn(session, candidate(), picture(0)) == drawn(session, candidate(), picture(0))
    assert len({drawn(session, candidate(), each) for each in (picture(0), picture(1), None)}) == 3


def test_what_is_hidden_everywhere_changes_nothing(session: Session) -> None:
    hidden = candidate(*range(PLACES))
    assert len({drawn(session, hidden, each) for each in (picture(0), picture(1), None)}) == 1


def worn_over(session: Session, candidates: list[Candidate], framed: bool = False) -> list[bytes]:
    """A blue drawing over what is drawn of candidates, the n-th by the stream n."""
    worn = WornDrawing(Image.new("RGB", (IMAGE, IMAGE), "blue"), WornLook(Unchanged()), framed)
    streams = [torch.Generator().manual_seed(number) for number in range(len(candidates))]
    asked = Asked((), picture(0), "", (), worn=worn)
    with torch.inference_mode():
        images = draw(session.parts, candidates, streams, resolve(session.model, {}), asked)
    return [image.tobytes() for image in images]


def test_nothing_is_drawn_that_a_worn_drawing_covers(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counted(*given: object, **named: object) -> torch.Tensor:
        drawn.append(len(named["beside"].reference))  # type: ignore[attr-defined]
        return torch.zeros(drawn[-1], 4, 8, 8)

    monkeypatch.setattr(drawing, "draw_latents", counted)
    worn_over(session, [candidate()])
    assert not drawn
    worn_over(session, [candidate(), candidate(1), candidate()])
    worn_over(session, [candidate(), candidate(1), candidate()], framed=True)
    assert drawn == [1, 3]


def test_what_a_worn_drawing_covers_changes_no_other_image(session: Session) -> None:
    covered, seen = worn_over(session, [candidate(), candidate(1)])
    assert seen == worn_over(session, [candidate(2), candidate(1)])[1]
    assert covered == worn_over(session, [candidate()])[0] != seen
