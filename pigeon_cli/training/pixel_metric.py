"""How much a change of latents is seen in the picture: what a quantizer of latents must not get wrong."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.diffusion import restore_latents
from pigeon_cli.models.memory import from_patches, to_patches

PROBED: Final = 40
"""Patches of as many drawings whose numbers are changed one by one."""
STEP: Final = 0.3
"""By so much, in deviations of latents."""
FLOOR: Final = 0.02
"""Of the mean sensitivity, added to that in all directions: what is hardly seen in these patches is not free in all."""


@torch.no_grad()
def pixel_metric(vae: Any, latents: Tensor, side: int) -> Tensor:
    """A matrix [width, width]: the length of a change of a patch of ``side`` x ``side`` places, times it, goes about as
    the change of the picture's pixels.

    ``latents`` [drawings, c, h, w] are scaled. On the same drawings, 6 codebooks keep pictures 2.5 dB better by it.
    """
    stream = torch.Generator().manual_seed(stream_seed(0, "pixel metric"))
    patches = to_patches(latents, side)
    count, width = patches.shape[1:]
    total = torch.zeros(width, width)
    for number in torch.randint(len(patches), (PROBED,), generator=stream).tolist():
        place = int(torch.randint(count, (1,), generator=stream))
        changed = patches[number].repeat(width + 1, 1, 1)
        changed[:width, place] += STEP * torch.eye(width)
        drawn = vae.decode(restore_latents(vae, from_patches(changed, side)).to(vae.device)).sample.float().cpu()
        moved = (drawn[:width] - drawn[width:]).flatten(1)
        total += moved @ moved.T
    total *= width / total.trace()
    factor: Tensor = torch.linalg.cholesky(total + FLOOR * torch.eye(width))
    return factor
