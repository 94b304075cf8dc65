"""Pictures of few colours in few bytes, with sharp lines: latents roughen what is flat or in ink."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image
from torch import Tensor

REFINED: Final = 3
"""Rounds of k-means on the colours that a median cut finds."""


def pack_flat(picture: Tensor, colours: int) -> bytes:
    """An RGB picture float [3, S, S] in 0..1, in so many ``colours``, as a lossless WebP file."""
    pixels = (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    few = Image.fromarray(pixels).quantize(colours, Image.Quantize.MEDIANCUT, REFINED, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    few.convert("RGB").save(packed, "WEBP", lossless=True, quality=100, method=6)
    return packed.getvalue()


def unpack_flat(packed: bytes) -> Image.Image:
    """The RGB picture of :func:`pack_flat`."""
    with Image.open(io.BytesIO(packed), formats=("WEBP",)) as image:
        return image.convert("RGB")
