"""Codes to pixels: the condition from the embedding decoder, then UNet and VAE, a few images at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from pigeon_cli.core.configs import DiffusionConfig
from pigeon_cli.core.records import TokenMask
from pigeon_cli.engine.stage_bytes import IMAGES_AT_ONCE
from pigeon_cli.history.preprocess import to_shares
from pigeon_cli.models.diffusion import (
    NOTHING,
    Beside,
    UNet,
    build_scheduler,
    decode_latents,
    denoise,
    encode_latents,
    initial_latents,
    seen_picture,
    visible,
)
from pigeon_cli.models.embedding_decoder import DecodedCondition, EmbeddingDecoder
from pigeon_cli.models.quantizer import Quantizer


def condition(decoder: EmbeddingDecoder, quantizer: Quantizer, codes: Sequence[Sequence[int]]) -> DecodedCondition:
    """What the image generator is conditioned on, one row per image of ``codes`` (any lengths)."""
    length = max(len(row) for row in codes)
    packed = torch.tensor([[*row, *[-1] * (length - len(row))] for row in codes], dtype=torch.int64)
    packed = packed.to(quantizer.embedding.weight.device)
    found: DecodedCondition = decoder(quantizer.lookup(packed), packed >= 0)
    return found


def seen_latents(
    vae: AutoencoderKL, config: DiffusionConfig, reference: Image.Image, masks: Sequence[TokenMask], places: int
) -> Tensor:
    """Scaled latents [masks, c, h, w] of an RGB reference as each mask leaves it: zero in all but the kept patches."""
    latents = _latents(vae, config, [reference])
    return visible(latents, kept_places(masks, places).to(latents.device))


def liked_latents(
    vae: AutoencoderKL,
    config: DiffusionConfig,
    history: Sequence[Image.Image],
    masks: Sequence[TokenMask],
    places: int,
    plain: Tensor | None = None,
    at_once: int = IMAGES_AT_ONCE,
) -> Tensor:
    """RGB images, each under its own mask, as :func:`seen_picture` makes them of their latents and, where the model
    sees those, ``plain`` [images, c, h, w], or nothing for them; ``at_once`` images make one batch at most."""
    latents = _latents(vae, config, history, at_once)
    if config.history_plain and plain is None:
        plain = torch.zeros_like(latents)
    return seen_picture(latents, kept_places(masks, places).to(latents.device), plain)


def _latents(
    vae: AutoencoderKL, config: DiffusionConfig, images: Sequence[Image.Image], at_once: int = IMAGES_AT_ONCE
) -> Tensor:
    pixels = torch.stack([torch.from_numpy(to_shares(image, config.image_size)) for image in images])
    return torch.cat([encode_latents(vae, part) for part in pixels.split(at_once)])


def kept_places(masks: Sequence[TokenMask], places: int) -> Tensor:
    """Float [masks, places]: 1 where a patch is kept."""
    keep = torch.zeros(len(masks), places)
    for row, mask in enumerate(masks):
        patches = [mask.patches[token] for token in mask.kept]
        keep[row, [patch for patch in patches if patch >= 0]] = 1
    return keep


def draw_latents(
    unet: UNet,
    config: DiffusionConfig,
    wanted: DecodedCondition,
    streams: Sequence[torch.Generator],
    *,
    steps: int,
    guidance: float,
    size: tuple[int, int] | None = None,
    at_once: int = IMAGES_AT_ONCE,
    beside: Beside = NOTHING,
) -> Tensor:
    """Clean float32 latents [B, c, h, w] for every row of ``wanted``; one random stream per image.

    ``size`` is (height, width) in pixels, by default the model's own; ``at_once`` images make one batch at most.
    ``beside`` is what else a small model's UNet is told of every row.
    """
    height, width = size or (config.image_size, config.image_size)
    cell = 2 ** (len(config.vae["block_out_channels"]) - 1)
    shape = (int(config.unet.get("out_channels", 4)), height // cell, width // cell)
    noise = initial_latents(shape, streams).to(wanted.context.device)
    scheduler = build_scheduler(config)
    parts = [
        denoise(
            unet,
            scheduler,
            wanted.context[start : start + at_once],
            wanted.pooled[start : start + at_once],
            noise[start : start + at_once],
            steps=steps,
            guidance=guidance,
            size=(height, width),
            beside=beside.rows(start, start + at_once),
            taste_guidance=config.taste_guidance,
            guided_from=config.guided_from,
        )
        for start in range(0, len(noise), at_once)
    ]
    return torch.cat(parts)


def to_images(vae: AutoencoderKL, latents: Tensor, at_once: int = IMAGES_AT_ONCE) -> list[Image.Image]:
    """RGB images of latents [B, c, h, w]."""
    parts = [decode_latents(vae, part) for part in latents.split(at_once)]
    return [Image.fromarray(pixels.numpy()) for part in parts for pixels in part]
