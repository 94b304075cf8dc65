"""Pictures of few colours in few bytes, with sharp lines: latents roughen what is flat or in ink."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image, ImageFilter
from torch import Tensor

REFINED: Final = 3
"""Rounds of k-means on the colours that a median cut finds."""
SPECKS: Final = 3
"""Pixels across of the median that takes specks off a rough picture."""


def few_colours(picture: Image.Image, colours: int) -> Image.Image:
    """An RGB picture in so many colours."""
    few = picture.quantize(colours, Image.Quantize.MEDIANCUT, REFINED, dither=Image.Dither.NONE)
    return few.convert("RGB")


def smoothed_flat(picture: Image.Image, colours: int) -> Image.Image:
    """A rough RGB picture of something flat, in so many colours."""
    return few_colours(picture.filter(ImageFilter.MedianFilter(SPECKS)), colours)


def pack_flat(picture: Tensor, colours: int) -> bytes:
    """An RGB picture float [3, S, S] in 0..1, in so many ``colours``, as a lossless WebP file."""
    pixels = (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    packed = io.BytesIO()
    few_colours(Image.fromarray(pixels), colours).save(packed, "WEBP", lossless=True, quality=100, method=6)
    return packed.getvalue()


def unpack_flat(packed: bytes) -> Image.Image:
    """The RGB picture of :func:`pack_flat`."""
    with Image.open(io.BytesIO(packed), formats=("WEBP",)) as image:
        return image.convert("RGB")
