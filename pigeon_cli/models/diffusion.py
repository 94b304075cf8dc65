"""From the embedding decoder's output to pixels: UNet, scheduler and VAE of diffusers (DESIGN.md section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt
from typing import Any, Final, cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import DiffusionConfig
from pigeon_cli.models.history_encoder import HistoryEncoder

SIZES = 6
"""Numbers of SDXL's size conditioning (:func:`size_ids`)."""


@dataclass(frozen=True)
class Beside:
    """What a :class:`GridUNet` is told of a request beside its codes, as far as it can be told such things."""

    reference: Tensor | None = None
    """Scaled latents [B, c, h, w], zero where the reference is hidden; ``None`` where there is no picture of it."""
    taste: Tensor | None = None
    """The history's taste [B, taste width]; a row of zeros, like ``None``, says nothing."""
    history: Tensor | None = None
    """Liked pictures [B, N, channels, h, w] as :func:`seen_picture` makes them."""

    def rows(self, start: int, end: int) -> Beside:
        """Some rows of a batch."""
        parts = (self.reference, self.taste, self.history)
        return Beside(*(None if part is None else part[start:end] for part in parts))

    def tells_taste(self) -> bool:
        """Whether anything of the history is told."""
        return self.taste is not None or self.history is not None

    def without_taste(self) -> Beside:
        """The reference alone, and of as many pictures nothing."""
        return Beside(self.reference, history=None if self.history is None else torch.zeros_like(self.history))


NOTHING: Final = Beside()
"""Codes alone."""


class GridUNet(nn.Module):
    """A UNet whose input also carries the decoder's context as a small picture, latents of a reference, and a taste.

    Cross-attention alone learns layout slowly; ``mini`` therefore joins the context, read as a square grid in reading
    order and brought to twice its side by pixel shuffle, to the latents, and what is not hidden of the reference. The
    taste recolours the reference, which is nearly linear in latents too, and is added to the pooled condition. Liked
    pictures are attended to beside the context.
    """

    def __init__(self, unet: UNet2DConditionModel, context_width: int, config: DiffusionConfig) -> None:
        super().__init__()
        self.unet = unet
        self.grid_channels, self.reference_channels = config.grid_channels, config.reference_channels
        self.taste_width = config.taste_width
        self.grid_projection = nn.Linear(context_width, 4 * config.grid_channels)
        self.history_pictures = config.history_pictures
        pooled = config.unet["projection_class_embeddings_input_dim"] - SIZES * config.unet["addition_time_embed_dim"]
        if config.history_pictures:
            self.history_channels = config.unet["out_channels"] * (2 if config.history_plain else 1) + 1
            side = config.unet["sample_size"]
            self.liked = HistoryEncoder(self.history_channels, side, config.history_widths, context_width, pooled)
        if config.taste_width:
            self.tells = nn.Linear(config.taste_width, pooled)
            self.recolours = nn.Linear(config.taste_width, config.reference_channels**2)
            for last in (self.tells, self.recolours):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    @property
    def config(self) -> Any:
        """Configuration of the UNet inside."""
        return _settings(self.unet)

    def project(self, context: Tensor, beside: Beside = NOTHING) -> Tensor:
        """Context [B, Q, C] to [B, grid_channels, 2 sqrt(Q), 2 sqrt(Q)]; Q is a square number.

        Behind them the channels of the reference, recoloured; zeros where it is not seen at all.
        """
        batch, queries, _ = context.shape
        side = isqrt(queries)
        grid = self.grid_projection(context).transpose(1, 2).reshape(batch, -1, side, side)
        grid = functional.pixel_shuffle(grid, 2)
        if not self.reference_channels:
            return grid
        reference = beside.reference
        if reference is None:
            reference = grid.new_zeros(batch, self.reference_channels, *grid.shape[2:])
        elif beside.taste is not None:
            matrix = self.recolours(beside.taste.to(grid)).unflatten(1, (self.reference_channels, -1))
            reference = reference + torch.einsum("bchw,bcd->bdhw", reference, matrix.to(reference.dtype))
        return torch.cat([grid, reference.to(grid.dtype)], dim=1)

    def attend(self, context: Tensor, pooled: Tensor, beside: Beside = NOTHING) -> tuple[Tensor, Tensor]:
        """Context [B, Q, C] with the tokens of liked pictures behind it, and the pooled vector [B, P] with taste and
        history added."""
        pooled = self.tell(pooled, beside.taste)
        if not self.history_pictures:
            return context, pooled
        side = self.config.sample_size
        shape = (len(context), self.history_pictures, self.history_channels, side, side)
        history = context.new_zeros(shape) if beside.history is None else beside.history.to(context)
        missing = max(0, self.history_pictures - history.shape[1])
        tokens, told = self.liked.read(functional.pad(history, (0, 0, 0, 0, 0, 0, 0, missing)))
        return torch.cat([context, tokens], dim=1), pooled + told

    def tell(self, pooled: Tensor, taste: Tensor | None) -> Tensor:
        """The pooled vector [B, P] with a taste [B, taste width] added."""
        if self.taste_width == 0:
            return pooled
        told = pooled.new_zeros(len(pooled), self.taste_width) if taste is None else taste.to(pooled)
        added: Tensor = self.tells(told)
        return pooled + added

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
            channels = self.grid_channels + self.reference_channels
            grid = sample.new_zeros(sample.shape[0], channels, *sample.shape[2:])
        joined = torch.cat([sample, grid.to(sample.dtype)], dim=1)
        return predict(self.unet, joined, timestep, encoder_hidden_states, added_cond_kwargs)


UNet = UNet2DConditionModel | GridUNet


def build_unet(config: DiffusionConfig, context_width: int) -> UNet:
    """The UNet of ``config``, wrapped in :class:`GridUNet` when ``grid_channels`` is positive."""
    unet = UNet2DConditionModel(**config.unet)
    if config.grid_channels == 0:
        return unet
    return GridUNet(unet, context_width, config)


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
    beside: Beside = NOTHING,
    taste_guidance: float = 1.0,
    guided_from: int = 0,
) -> Tensor:
    """DDIM from noise ``latents`` [B, c, h, w] to clean latents of the same shape.

    ``context`` [B, Q, C] and ``pooled`` [B, P] are the condition; the negative condition is all zeros, and both run as
    one batch of 2 B with ``u + guidance (c - u)``; ``guidance`` 1 runs the condition alone. ``size`` is (height, width)
    in pixels. ``grid`` replaces ``context`` as what a :class:`GridUNet` reads as a picture; ``beside`` is what else it
    is told.

    Where ``beside`` tells of a history and ``taste_guidance`` is not 1, a third of the batch, m, is told all but that:
    ``u + guidance (m - u) + guidance taste_guidance (c - m)``. Timesteps below ``guided_from`` run the condition alone.
    """
    # A schedule carries state; a copy leaves the caller's untouched.
    schedule = DDIMScheduler.from_config(_settings(scheduler))
    schedule.set_timesteps(steps, device=latents.device)
    told = [_condition(unet, context, pooled, grid, beside)]
    if guidance != 1.0:
        if taste_guidance != 1.0 and beside.tells_taste():
            told.insert(0, _condition(unet, context, pooled, grid, beside.without_taste()))
        told.insert(0, told[-1].zeros())
    whole, alone = _Condition.joined(told), told[-1]
    sizes = size_ids(*size, len(whole.context)).to(context)
    latents = latents * schedule.init_noise_sigma
    for timestep in schedule.timesteps:
        condition, parts = (whole, len(told)) if timestep >= guided_from else (alone, 1)
        added = {"text_embeds": condition.pooled, "time_ids": sizes[: len(condition.context)]}
        batch = latents.repeat(parts, 1, 1, 1).to(context.dtype)
        output = predict(unet, batch, timestep, condition.context, added, condition.picture).to(latents.dtype)
        output = _guided(output.chunk(parts), guidance, taste_guidance)
        latents = schedule.step(output, timestep, latents, return_dict=False)[0]
    return latents


@dataclass(frozen=True)
class _Condition:
    """What one call of a UNet is told: context [B, Q, C], pooled [B, P], and what a :class:`GridUNet` reads as a
    picture."""

    context: Tensor
    pooled: Tensor
    picture: Tensor | None

    def zeros(self) -> _Condition:
        """Nothing, in the same shapes."""
        picture = None if self.picture is None else torch.zeros_like(self.picture)
        return _Condition(torch.zeros_like(self.context), torch.zeros_like(self.pooled), picture)

    @staticmethod
    def joined(parts: Sequence[_Condition]) -> _Condition:
        """Some of them as one batch."""
        pictures = [part.picture for part in parts if part.picture is not None]
        return _Condition(
            torch.cat([part.context for part in parts]),
            torch.cat([part.pooled for part in parts]),
            torch.cat(pictures) if pictures else None,
        )


def _condition(unet: UNet, context: Tensor, pooled: Tensor, grid: Tensor | None, beside: Beside) -> _Condition:
    if not isinstance(unet, GridUNet):
        return _Condition(context, pooled, None)
    picture = unet.project(context if grid is None else grid, beside)
    return _Condition(*unet.attend(context, pooled, beside), picture)


def _guided(outputs: Sequence[Tensor], guidance: float, taste_guidance: float) -> Tensor:
    """One prediction of those of nothing, of all but the taste, and of all; of nothing and of all; or of all alone."""
    guided = outputs[0]
    for number, (less, more) in enumerate(pairwise(outputs)):
        guided = guided + guidance * (taste_guidance if number else 1.0) * (more - less)
    return guided


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


@torch.no_grad()
def encode_latents(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """RGB float [B, 3, H, W] in 0..1 to scaled latents [B, c, h, w], float32: their most likely values."""
    module: Any = vae
    found: Tensor = module.encode(images.to(module.device, module.dtype) * 2 - 1).latent_dist.mode()
    return scale_latents(vae, found.float())


def visible(latents: Tensor, keep: Tensor) -> Tensor:
    """Latents [B or 1, c, h, w] of references, zero where a place is hidden; ``keep`` [B, places] in reading order."""
    side = isqrt(keep.shape[1])
    squares = keep.reshape(-1, 1, side, side).to(latents.dtype)
    return latents * functional.interpolate(squares, size=latents.shape[-2:])


def seen_picture(latents: Tensor, keep: Tensor, plain: Tensor | None = None) -> Tensor:
    """Latents [B, c, h, w] of liked pictures as :class:`Beside` has them, [B, c + 1, h, w]: :func:`visible`, and behind
    them what is kept; [B, 2 c + 1, h, w] with those of their ``plain`` drawings between, zero where there is none.
    """
    parts = [latents] if plain is None else [latents, plain.to(latents)]
    return torch.cat([visible(part, keep) for part in (*parts, torch.ones_like(latents[:, :1]))], dim=1)


def to_pixels(images: Tensor) -> Tensor:
    """Float [B, 3, H, W] in -1..1 to uint8 [B, H, W, 3] on the CPU."""
    scaled = (images.float() / 2 + 0.5).clamp(0, 1) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


def _settings(module: Any) -> Any:
    """Configuration of a diffusers object, which its class provides without a declared type."""
    return module.config


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(list(values), dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)
