"""Pictures as a model draws them at its own steps and guidance, for training to look at or to learn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from pigeon_cli.core.configs import DiffusionConfig
from pigeon_cli.models.diffusion import Beside, GridUNet, decode_latents
from pigeon_cli.models.embedding_decoder import DecodedCondition
from pigeon_cli.pipeline.decode import draw_latents


def draw_pictures(
    unet: GridUNet,
    vae: AutoencoderKL,
    config: DiffusionConfig,
    condition: DecodedCondition,
    streams: Sequence[torch.Generator],
    beside: Beside,
) -> Tensor:
    """Float pictures [B, 3, H, W] in 0..1 of B conditions, in one batch, on their device."""
    latents = draw_latents(
        unet,
        config,
        condition,
        streams,
        steps=config.steps,
        guidance=config.guidance,
        at_once=len(streams),
        beside=beside,
    )
    return decode_pictures(vae, latents)


def decode_pictures(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Float pictures [B, 3, H, W] in 0..1 of scaled latents [B, c, h, w], in one batch, on their device."""
    return decode_latents(vae, latents).permute(0, 3, 1, 2).float().to(latents.device) / 255
