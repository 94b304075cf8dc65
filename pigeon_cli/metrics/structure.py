"""SSIM (Wang et al. 2004) and MS-SSIM (Wang et al. 2003) of images as float tensors in 0..1.

The papers' constants: an 11 x 11 Gaussian window of deviation 1.5 that stays within the image, K1 = 0.01, K2 = 0.03,
five scales. Each colour channel is compared on its own, then the channels' mean is taken.
"""

from __future__ import annotations

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
"""Pixels that MS-SSIM needs, so that the window fits into the coarsest scale."""


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Images float [N, C, H, W] in 0..1, pair by pair: [N], 1 for the same image. ``ValueError`` below 11 pixels."""
    structure, luminance = _parts(first, second)
    return (luminance * structure).mean((1, 2, 3))


def multiscale_ssim(first: Tensor, second: Tensor) -> Tensor:
    """Images float [N, C, H, W] in 0..1, pair by pair: [N]; ``ValueError`` below 176 pixels.

    A negative mean of a scale counts as 0, for it has no real power.
    """
    if min(first.shape[-2:]) < SMALLEST_SIDE:
        raise ValueError(f"MS-SSIM needs images of {SMALLEST_SIDE} pixels, not {tuple(first.shape[-2:])}")
    total = torch.ones(first.shape[:2], device=first.device)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            first, second = functional.avg_pool2d(first, 2), functional.avg_pool2d(second, 2)
        structure, luminance = _parts(first, second)
        last = scale == len(SCALE_WEIGHTS) - 1
        means = (luminance * structure if last else structure).mean((2, 3))
        total = total * means.clamp_min(0) ** weight
    return total.mean(1)


def _parts(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Maps [N, C, h, w] of contrast times structure, and of luminance."""
    if first.shape != second.shape or min(first.shape[-2:]) < WINDOW:
        raise ValueError(f"images of {tuple(first.shape)} and {tuple(second.shape)} cannot be compared")
    mean1, mean2 = _blur(first), _blur(second)
    variance1, variance2 = _blur(first * first) - mean1**2, _blur(second * second) - mean2**2
    covariance = _blur(first * second) - mean1 * mean2
    structure = (2 * covariance + C2) / (variance1 + variance2 + C2)
    luminance = (2 * mean1 * mean2 + C1) / (mean1**2 + mean2**2 + C1)
    return structure, luminance


def _blur(images: Tensor) -> Tensor:
    """The window's weighted mean around every pixel that is at least 5 from the border."""
    places = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    weights = torch.exp(-(places**2) / (2 * DEVIATION**2))
    weights = (weights / weights.sum()).expand(images.shape[1], 1, 1, WINDOW)
    across = functional.conv2d(images, weights, groups=images.shape[1])
    return functional.conv2d(across, weights.transpose(2, 3), groups=images.shape[1])
