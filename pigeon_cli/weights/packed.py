"""Large matrices as int8 levels with one scale a row: half of bfloat16 in a file, floating numbers once they are read.

Weights are computed with as ever; for int8 in memory see :mod:`pigeon_cli.models.quantized`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import torch
from torch import Tensor

from pigeon_cli.weights.scales import SCALE_ENDING, scale_of

FEWEST_NUMBERS: Final = 4096
"""Of smaller tensors there is little to save: 4 kB each."""
MOST_LEVELS: Final = 127
"""Of either sign."""
SHARES: Final = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of a row's largest number that level 127 may stand for: larger ones are cut to it, all others come nearer."""


def pack(tensors: Mapping[str, Tensor], rest: torch.dtype, exact: Collection[str] = ()) -> dict[str, Tensor]:
    """Tensors for a file, on their own devices.

    A floating tensor of two dimensions or more and at least ``FEWEST_NUMBERS`` numbers becomes int8 of the same shape,
    and float32 [first dimension] under :func:`scale_of`; one of ``exact`` does not. Other floating tensors become
    ``rest``, all others stay. A row that is not finite is not finite either when it is unpacked. Raises
    :class:`ValueError` for a name of ``exact`` that no tensor has.
    """
    if unknown := set(exact) - tensors.keys():
        raise ValueError(f"there is no tensor {min(unknown)} to keep exact")
    packed = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            packed[name] = tensor
        elif tensor.ndim < 2 or tensor.numel() < FEWEST_NUMBERS or name in exact:
            packed[name] = tensor.to(rest)
        else:
            packed[name], packed[scale_of(name)] = _levels(tensor.detach())
    return packed


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`pack`: int8 tensors that have scales become float32, all others stay as they are.

    Raises :class:`ValueError` that names the key of scales without int8 tensor, or not one for each of its rows.
    """
    unpacked = {}
    for name, tensor in tensors.items():
        owner, scale = name.removesuffix(SCALE_ENDING), tensors.get(scale_of(name))
        if owner != name:
            if owner not in tensors or tensors[owner].dtype != torch.int8:
                raise ValueError(f"holds the scales {name} of no int8 tensor")
        elif tensor.dtype == torch.int8 and scale is not None:
            if scale.shape != tensor.shape[:1]:
                raise ValueError(f"holds {scale_of(name)} as {tuple(scale.shape)} for {name} {tuple(tensor.shape)}")
            unpacked[name] = tensor * scale.float().reshape(-1, *(1 for _ in tensor.shape[1:]))
        else:
            unpacked[name] = tensor
    return unpacked


def _levels(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Int8 like ``tensor`` and float32 [rows], each row's scale being the one that errs least in squares.

    Scales take float32: float16 has few bits left for those of small rows (mini's are down to 7e-6), bfloat16 is so
    coarse that what was packed would change when it is packed again, and 2 bytes a row are half a percent of a file.
    """
    rows = tensor.float().flatten(1)
    # Rows of zeros are divided by the smallest number there is, and stay zeros.
    full = (rows.abs().amax(1) / MOST_LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
    best, scale, least = _rounded(rows, full)
    for share in SHARES[1:]:
        levels, tried, error = _rounded(rows, full * share)
        better = error < least
        best = torch.where(better.unsqueeze(1), levels, best)
        scale, least = torch.where(better, tried, scale), torch.where(better, error, least)
    return best.to(torch.int8).reshape(tensor.shape), scale


def _rounded(rows: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Levels [rows, numbers] under ``scale`` [rows], the scale, and the sum of squared errors [rows]."""
    steps = scale.unsqueeze(1)
    levels = (rows / steps).round().clamp(-MOST_LEVELS, MOST_LEVELS)
    return levels, scale, (levels * steps - rows).square().sum(1)
