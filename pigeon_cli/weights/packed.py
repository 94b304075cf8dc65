"""Large matrices as levels of eight or six bits with one scale a row: half of bfloat16 in a file, or three eighths;
floating numbers once they are read.

Weights are computed with as ever; for int8 in memory see :mod:`pigeon_cli.models.quantized`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import torch
from torch import Tensor

from pigeon_cli.weights.scales import BYTES, QUARTET, SCALE_ENDING, scale_of

FEWEST_NUMBERS: Final = 4096
"""Of smaller tensors there is little to save: 4 kB each."""
FEWEST_OF_SIX: Final = 250_000
"""Of smaller tensors six bits save little, and err more: sums of fewer numbers."""
SHARES: Final = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of a row's largest number that the last level may stand for: larger ones are cut to it, all others come
nearer."""
EIGHT, SIX = 8, 6
_MIDDLE: Final = 32
"""Added to levels of six bits, which have no sign in a file."""


def pack(
    tensors: Mapping[str, Tensor], rest: torch.dtype, exact: Collection[str] = (), bits: int = EIGHT
) -> dict[str, Tensor]:
    """Tensors for a file, on their own devices.

    A floating tensor of two dimensions or more and at least ``FEWEST_NUMBERS`` numbers becomes int8 of the same shape,
    and float32 [first dimension] under :func:`scale_of`; one of ``exact`` does not. With ``SIX`` bits one of at least
    ``FEWEST_OF_SIX`` numbers becomes uint8 with three quarters of the rows, if four divides these. Other floating
    tensors become ``rest``, all others stay. A row that is not finite is not finite either when it is unpacked. Raises
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
        elif bits == SIX and tensor.numel() >= FEWEST_OF_SIX and len(tensor) % QUARTET == 0:
            levels, packed[scale_of(name)] = _levels(tensor.detach(), SIX)
            packed[name] = _joined(levels)
        else:
            packed[name], packed[scale_of(name)] = _levels(tensor.detach(), EIGHT)
    return packed


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`pack`: int8 and uint8 tensors that have scales become float32, all others stay as they are.

    Raises :class:`ValueError` that names the key of scales without packed tensor, or not one for each of its rows.
    """
    unpacked = {}
    for name, tensor in tensors.items():
        owner, scale = name.removesuffix(SCALE_ENDING), tensors.get(scale_of(name))
        if owner != name:
            if owner not in tensors or tensors[owner].dtype not in (torch.int8, torch.uint8):
                raise ValueError(f"holds the scales {name} of no packed tensor")
        elif tensor.dtype in (torch.int8, torch.uint8) and scale is not None:
            levels = tensor if tensor.dtype == torch.int8 else _parted(name, tensor)
            if scale.shape != levels.shape[:1]:
                raise ValueError(f"holds {scale_of(name)} as {tuple(scale.shape)} for {name} {tuple(tensor.shape)}")
            unpacked[name] = levels * scale.float().reshape(-1, *(1 for _ in levels.shape[1:]))
        else:
            unpacked[name] = tensor
    return unpacked


def _joined(levels: Tensor) -> Tensor:
    """Levels of six bits, int8 [4 n, ...], as uint8 [3 n, ...]: of a row and the rows n, 2 n and 3 n behind it."""
    first, second, third, fourth = (levels.short() + _MIDDLE).to(torch.uint8).chunk(QUARTET)
    return torch.cat([first | second << 6, second >> 2 | third << 4, third >> 4 | fourth << 2])


def _parted(name: str, joined: Tensor) -> Tensor:
    """The inverse of :func:`_joined`."""
    if len(joined) % BYTES:
        raise ValueError(f"holds {name} as {tuple(joined.shape)}, which is no whole number of {BYTES} rows")
    first, second, third = joined.chunk(BYTES)
    rows = [first, first >> 6 | second << 2, second >> 4 | third << 4, third >> 2]
    return (torch.cat(rows) & 2 * _MIDDLE - 1).to(torch.int8) - _MIDDLE


def _levels(tensor: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Int8 like ``tensor`` and float32 [rows], each row's scale being the one that errs least in squares.

    Scales take float32: float16 has few bits left for those of small rows (mini's are down to 7e-6), bfloat16 is so
    coarse that what was packed would change when it is packed again, and 2 bytes a row are half a percent of a file.
    """
    rows = tensor.float().flatten(1)
    # Rows of zeros are divided by the smallest number there is, and stay zeros.
    most = 2 ** (bits - 1) - 1
    full = (rows.abs().amax(1) / most).clamp_min(torch.finfo(torch.float32).tiny)
    best, scale, least = _rounded(rows, full, most)
    for share in SHARES[1:]:
        levels, tried, error = _rounded(rows, full * share, most)
        better = error < least
        best = torch.where(better.unsqueeze(1), levels, best)
        scale, least = torch.where(better, tried, scale), torch.where(better, error, least)
    return best.to(torch.int8).reshape(tensor.shape), scale


def _rounded(rows: Tensor, scale: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Levels [rows, numbers] up to ``most`` of either sign under ``scale`` [rows], the scale, and the sum of squared
    errors [rows]."""
    steps = scale.unsqueeze(1)
    levels = (rows / steps).round().clamp(-most, most)
    return levels, scale, (levels * steps - rows).square().sum(1)
