"""Drawings as the indices of codebooks: what a memory's drawings take, and how well they are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pigeon_cli.models.memory import pack_indices, to_patches
from pigeon_cli.training.residual_books import fit_books, quantize

LEVELS, PATCH_SIDE = 7, 2
"""Of the quantizer that keeps the drawings: its codebooks, and the places of the latents in one vector, each way."""
PRICE: Final = 0.0055
"""Of an index, as a share of a patch's variance: an eighth fewer bytes for nearly the same pictures than if all levels
were always told."""


def quantized(latents: Tensor, true: Sequence[bool], metric: Tensor) -> tuple[Tensor, bytes]:
    """Codebooks fitted to those of latents [drawings, c, h, w] that are ``true``, and the packed indices of all.

    ``metric``: of :func:`pigeon_cli.training.pixel_metric.pixel_metric`.
    """
    patches = to_patches(latents, PATCH_SIDE)
    books = fit_books(patches[torch.tensor(true)].flatten(0, 1), LEVELS, metric)
    found = quantize(patches.flatten(0, 1), books, metric, PRICE * patches.shape[2])
    indices: NDArray[np.uint8] = found.unflatten(1, patches.shape[:2]).numpy()
    return books, pack_indices(indices.transpose(1, 0, 2))
