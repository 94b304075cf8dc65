"""SSIM (Wang et al. 2004) and MS-SSIM (Wang et al. 2003) of images as float tensors in 0..1.

The papers' constants: an 11 x 11 Gaussian window of deviation 1.5 that stays within the image, K1 = 0.01, K2 = 0.03,
five scales. Each colour channel is compared on its own, then the channels' mean is taken.

What depends on one image alone is computed once (:func:`pyramid`), for an image is compared with many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

WINDOW: Final = 11
DEVIATION: Final = 1.5
C1: Final = 0.01**2
C2: Final = 0.03**2
SCALE_WEIGHTS: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first (Wang et al. 2003, section 4.2)."""
SMALLEST_SIDE: Final = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)
"""Pixels of a side, so that the window fits into the coarsest scale."""


@dataclass(frozen=True)
class Scale:
    """Images at one scale, [N, C, h, w], with the windows' means and variances, [N, C, h - 10, w - 10]."""

    images: Tensor
    mean: Tensor
    variance: Tensor


def pyramid(images: Tensor) -> list[Scale]:
    """The scales of images float [N, C, H, W], finest first; ``ValueError`` below 176 pixels."""
    if min(images.shape[-2:]) < SMALLEST_SIDE:
        raise ValueError(f"MS-SSIM needs images of {SMALLEST_SIDE} pixels, not {tuple(images.shape[-2:])}")
    scales = [_scale(images)]
    for _ in SCALE_WEIGHTS[1:]:
        scales.append(_scale(functional.avg_pool2d(scales[-1].images, 2)))
    return scales


def structural_similarity(first: list[Scale], second: list[Scale]) -> tuple[Tensor, Tensor]:
    """SSIM and MS-SSIM of image pairs, [N] each, 1 for the same image; one image may stand against N.

    A negative mean of a scale counts as 0 in MS-SSIM, for it has no real power.
    """
    structure, luminance = _parts(first[0], second[0])
    single = (luminance * structure).mean((1, 2, 3))
    product = structure.mean((2, 3)).clamp_min(0) ** SCALE_WEIGHTS[0]
    for one, other, weight in zip(first[1:], second[1:], SCALE_WEIGHTS[1:], strict=True):
        structure, luminance = _parts(one, other)
        if one is first[-1]:
            structure = structure * luminance
        product = product * structure.mean((2, 3)).clamp_min(0) ** weight
    return single, product.mean(1)


def _scale(images: Tensor) -> Scale:
    mean = _blur(images)
    return Scale(images, mean, _blur(images * images) - mean**2)


def _parts(first: Scale, second: Scale) -> tuple[Tensor, Tensor]:
    """Maps [N, C, h, w] of contrast times structure, and of luminance."""
    product = first.mean * second.mean
    covariance = _blur(first.images * second.images) - product
    structure = (2 * covariance + C2) / (first.variance + second.variance + C2)
    luminance = (2 * product + C1) / (first.mean**2 + second.mean**2 + C1)
    return structure, luminance


def _blur(images: Tensor) -> Tensor:
    """The window's weighted mean around every pixel that is at least 5 from the border."""
    # Two products with banded matrices: several times faster on a CPU than a convolution of three channels.
    height, width = images.shape[-2:]
    return _band(height, images) @ images @ _band(width, images).T


def _band(side: int, like: Tensor) -> Tensor:
    """[side - 10, side]: each row is the window's weights at its place."""
    places = torch.arange(WINDOW, device=like.device)
    weights = torch.exp(-((places - WINDOW // 2) ** 2) / (2 * DEVIATION**2)).to(like.dtype)
    rows = torch.arange(side - WINDOW + 1, device=like.device)[:, None]
    band = torch.zeros(len(rows), side, dtype=like.dtype, device=like.device)
    band[rows, rows + places] = weights / weights.sum()
    return band
