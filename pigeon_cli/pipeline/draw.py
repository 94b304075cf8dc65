"""Candidates to images, by the model's decoder, UNet and VAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor

from pigeon_cli.core.records import Candidate, TokenMask
from pigeon_cli.engine.residency import UNET, VAE, Parts
from pigeon_cli.engine.stage_bytes import IMAGES_AT_ONCE
from pigeon_cli.models.diffusion import Beside
from pigeon_cli.pipeline.asked import Asked
from pigeon_cli.pipeline.decode import draw_latents, liked_latents, seen_latents, to_images
from pigeon_cli.pipeline.looks import covers, in_look
from pigeon_cli.pipeline.raters import condition_of
from pigeon_cli.pipeline.settings import Settings

Liked: TypeAlias = tuple[Image.Image, TokenMask]
"""An RGB image of the history, and what of it is kept."""


def draw(
    parts: Parts,
    candidates: Sequence[Candidate],
    streams: Sequence[torch.Generator],
    settings: Settings,
    asked: Asked | None = None,
    taste: Tensor | None = None,
    history: Sequence[Liked] = (),
) -> list[Image.Image]:
    """RGB images of candidates, one random stream each.

    ``asked`` is what they are to answer, if anything; ``taste`` [width] that of the ``history``, whose pictures a small
    model's image generator sees too. It draws nothing that a worn drawing would cover.
    """
    worn, grid = None if asked is None else asked.worn, parts.model.spec.tokenizer.grid
    covered = [worn is not None and covers(worn, each.reference_tokens, grid) for each in candidates]
    left = [place for place, hidden in enumerate(covered) if not hidden]
    shown, wanted = [candidates[place] for place in left], [streams[place] for place in left]
    drawn = iter(_generated(parts, shown, wanted, settings, asked, taste, history) if left else ())
    height, width = settings.size
    images = [Image.new("RGB", (width, height)) if hidden else next(drawn) for hidden in covered]
    return images if worn is None else in_look(images, candidates, worn, grid)


def _generated(
    parts: Parts,
    candidates: Sequence[Candidate],
    streams: Sequence[torch.Generator],
    settings: Settings,
    asked: Asked | None,
    taste: Tensor | None,
    history: Sequence[Liked],
) -> list[Image.Image]:
    reference, plain = (None, None) if asked is None else (asked.reference, asked.plain)
    config = parts.model.spec.diffusion
    wanted = condition_of(parts, [candidate.codes for candidate in candidates])
    seen = None if reference is None else _seen(parts, candidates, reference)
    rows, at_once = len(candidates), parts.rows("draw", IMAGES_AT_ONCE)
    liked = None
    if history and config.history_pictures:
        liked = _liked(parts, history, plain, at_once).expand(rows, -1, -1, -1, -1)
    beside = Beside(seen, None if taste is None else taste.expand(rows, -1), liked)
    with parts.use(UNET) as unet:
        latents = draw_latents(
            unet,
            config,
            wanted,
            streams,
            steps=settings.steps,
            guidance=settings.guidance,
            size=settings.size,
            at_once=at_once,
            beside=beside,
        )
    with parts.use(VAE) as vae:
        return to_images(vae, latents, at_once)


def _seen(parts: Parts, candidates: Sequence[Candidate], reference: Image.Image) -> Tensor | None:
    """What a small model's image generator sees of the reference: as much as the language model did."""
    spec = parts.model.spec
    if not spec.diffusion.reference_channels:
        return None
    masks = [candidate.reference_tokens for candidate in candidates if candidate.reference_tokens is not None]
    with parts.use(VAE) as vae:
        return seen_latents(vae, spec.diffusion, reference, masks, spec.tokenizer.patches)


def _liked(parts: Parts, history: Sequence[Liked], plain: Tensor | None, at_once: int) -> Tensor:
    """[1, images, channels, h, w]."""
    spec = parts.model.spec
    images, masks = [image for image, _ in history], [mask for _, mask in history]
    with parts.use(VAE) as vae:
        return liked_latents(vae, spec.diffusion, images, masks, spec.tokenizer.patches, plain, at_once).unsqueeze(0)
