"""Codes to pixels: the condition from the embedding decoder, then UNet and VAE, a few images at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from pigeon_cli.core.configs import DiffusionConfig
from pigeon_cli.models.diffusion import UNet, build_scheduler, decode_latents, denoise, initial_latents
from pigeon_cli.models.embedding_decoder import DecodedCondition, EmbeddingDecoder
from pigeon_cli.models.quantizer import Quantizer

IMAGES_AT_ONCE = 16
"""Bounds memory; results do not depend on it."""


def condition(decoder: EmbeddingDecoder, quantizer: Quantizer, codes: Sequence[Sequence[int]]) -> DecodedCondition:
    """What the image generator is conditioned on, one row per image of ``codes`` (any lengths)."""
    length = max(len(row) for row in codes)
    packed = torch.tensor([[*row, *[-1] * (length - len(row))] for row in codes], dtype=torch.int64)
    packed = packed.to(quantizer.embedding.weight.device)
    found: DecodedCondition = decoder(quantizer.lookup(packed), packed >= 0)
    return found


def draw_latents(
    unet: UNet,
    config: DiffusionConfig,
    wanted: DecodedCondition,
    streams: Sequence[torch.Generator],
    *,
    steps: int,
    guidance: float,
) -> Tensor:
    """Clean latents [B, c, h, w] for every row of ``wanted``; one random stream per image."""
    side = int(config.unet["sample_size"])
    noise = initial_latents((int(config.unet["out_channels"]), side, side), streams).to(wanted.context.device)
    scheduler = build_scheduler(config)
    parts = [
        denoise(
            unet,
            scheduler,
            wanted.context[start : start + IMAGES_AT_ONCE],
            wanted.pooled[start : start + IMAGES_AT_ONCE],
            noise[start : start + IMAGES_AT_ONCE],
            steps=steps,
            guidance=guidance,
            size=(config.image_size, config.image_size),
        )
        for start in range(0, len(noise), IMAGES_AT_ONCE)
    ]
    return torch.cat(parts)


def to_images(vae: AutoencoderKL, latents: Tensor) -> list[Image.Image]:
    """RGB images of latents [B, c, h, w]."""
    parts = [decode_latents(vae, part) for part in latents.split(IMAGES_AT_ONCE)]
    return [Image.fromarray(pixels.numpy()) for part in parts for pixels in part]
