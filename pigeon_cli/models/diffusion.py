"""From the embedding decoder's output to pixels: UNet, scheduler and VAE of diffusers (DESIGN.md section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import DiffusionConfig


class GridUNet(nn.Module):
    """A UNet whose input also carries the decoder's context as a small picture.

    Cross-attention alone learns layout slowly; ``mini`` therefore joins the context, read as a square grid in reading
    order and brought to twice its side by pixel shuffle, to the latents.
    """

    def __init__(self, unet: UNet2DConditionModel, context_width: int, grid_channels: int) -> None:
        super().__init__()
        self.unet = unet
        self.grid_channels = grid_channels
        self.grid_projection = nn.Linear(context_width, 4 * grid_channels)

    @property
    def config(self) -> Any:
        """Configuration of the UNet inside."""
        return _settings(self.unet)

    def project(self, context: Tensor) -> Tensor:
        """Context [B, Q, C] to [B, grid_channels, 2 sqrt(Q), 2 sqrt(Q)]; Q is a square number."""
        batch, queries, _ = context.shape
        side = isqrt(queries)
        grid = self.grid_projection(context).transpose(1, 2).reshape(batch, -1, side, side)
        return functional.pixel_shuffle(grid, 2)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: dict[str, Tensor],
        grid: Tensor | None = None,
    ) -> Tensor:
        """Prediction for latents ``sample`` [B, c, h, w]; ``grid`` from :meth:`project`, ``None`` for zeros."""
        if grid is None:
            grid = sample.new_zeros(sample.shape[0], self.grid_channels, *sample.shape[2:])
        joined = torch.cat([sample, grid.to(sample.dtype)], dim=1)
        return predict(self.unet, joined, timestep, encoder_hidden_states, added_cond_kwargs)


UNet = UNet2DConditionModel | GridUNet


def build_unet(config: DiffusionConfig, context_width: int) -> UNet:
    """The UNet of ``config``, wrapped in :class:`GridUNet` when ``grid_channels`` is positive."""
    unet = UNet2DConditionModel(**config.unet)
    return GridUNet(unet, context_width, config.grid_channels) if config.grid_channels > 0 else unet


def build_vae(config: DiffusionConfig) -> AutoencoderKL:
    """The VAE of ``config``."""
    return AutoencoderKL(**config.vae)


def build_scheduler(config: DiffusionConfig) -> DDIMScheduler:
    """The DDIM scheduler of ``config``."""
    return DDIMScheduler(**config.scheduler)


def predict(
    unet: UNet, sample: Tensor, timestep: Tensor, context: Tensor, added: dict[str, Tensor], grid: Tensor | None = None
) -> Tensor:
    """One call of either kind of UNet; ``grid`` is only for :class:`GridUNet`."""
    if isinstance(unet, GridUNet):
        return cast(Tensor, unet(sample, timestep, context, added, grid))
    plain = cast(nn.Module, unet)
    output = plain(sample, timestep, encoder_hidden_states=context, added_cond_kwargs=added, return_dict=False)
    return cast(Tensor, output[0])


def size_ids(height: int, width: int, batch: int) -> Tensor:
    """SDXL's size conditioning [batch, 6]: original size, crop corner, target size.

    Sizes stand as (width, height), the reverse of SDXL's own order: the released weights are used so (NOTES 2.14).
    """
    return torch.tensor([[width, height, 0, 0, width, height]], dtype=torch.float32).expand(batch, -1)


def initial_latents(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal [B, *shape], one generator per image, drawn on the CPU."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


@torch.no_grad()
def denoise(
    unet: UNet,
    scheduler: DDIMScheduler,
    context: Tensor,
    pooled: Tensor,
    latents: Tensor,
    *,
    steps: int,
    guidance: float,
    size: tuple[int, int],
    grid: Tensor | None = None,
) -> Tensor:
    """DDIM from noise ``latents`` [B, c, h, w] to clean latents of the same shape.

    ``context`` [B, Q, C] and ``pooled`` [B, P] are the condition; the negative condition is all zeros, and both run as
    one batch of 2 B with ``u + guidance (c - u)``; ``guidance`` 1 runs the condition alone. ``size`` is (height, width)
    in pixels. ``grid`` replaces ``context`` as what a :class:`GridUNet` reads as a picture.
    """
    # A schedule carries state; a copy leaves the caller's untouched.
    schedule = DDIMScheduler.from_config(_settings(scheduler))
    schedule.set_timesteps(steps, device=latents.device)
    guided = guidance != 1.0
    picture = unet.project(context if grid is None else grid) if isinstance(unet, GridUNet) else None
    if guided:
        context, pooled = _with_zeros(context), _with_zeros(pooled)
        picture = None if picture is None else _with_zeros(picture)
    added = {"text_embeds": pooled, "time_ids": size_ids(*size, context.shape[0]).to(context)}
    latents = latents * schedule.init_noise_sigma
    for timestep in schedule.timesteps:
        batch = torch.cat([latents, latents]) if guided else latents
        output = predict(unet, batch.to(context.dtype), timestep, context, added, picture).to(latents.dtype)
        if guided:
            free, conditional = output.chunk(2)
            output = free + guidance * (conditional - free)
        latents = schedule.step(output, timestep, latents, return_dict=False)[0]
    return latents


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents [B, c, h, w] as the UNet makes them to RGB uint8 [B, H, W, 3] on the CPU."""
    module: Any = vae
    return to_pixels(module.decode(restore_latents(vae, latents).to(module.dtype), return_dict=False)[0])


def restore_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Undo the scaling between VAE and UNet: a factor, and a mean and deviation per channel where the VAE has them."""
    settings = _settings(vae)
    mean, deviation = settings.get("latents_mean"), settings.get("latents_std")
    restored: Tensor = latents / settings.scaling_factor
    if mean is None or deviation is None:
        return restored
    return restored * _channels(deviation, latents) + _channels(mean, latents)


def scale_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """The inverse of :func:`restore_latents`: what the encoder makes, as the UNet reads it."""
    settings = _settings(vae)
    mean, deviation = settings.get("latents_mean"), settings.get("latents_std")
    if mean is not None and deviation is not None:
        latents = (latents - _channels(mean, latents)) / _channels(deviation, latents)
    scaled: Tensor = latents * settings.scaling_factor
    return scaled


def to_pixels(images: Tensor) -> Tensor:
    """Float [B, 3, H, W] in -1..1 to uint8 [B, H, W, 3] on the CPU."""
    scaled = (images.float() / 2 + 0.5).clamp(0, 1) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


def _settings(module: Any) -> Any:
    """Configuration of a diffusers object, which its class provides without a declared type."""
    return module.config


def _with_zeros(values: Tensor) -> Tensor:
    """Zeros for the unconditional half, then ``values``."""
    return torch.cat([torch.zeros_like(values), values])


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(list(values), dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)
