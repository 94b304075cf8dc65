"""Pictures in few bytes, with sharper lines than as many bytes of latents: what is flat or in ink in few colours."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

REFINED: Final = 3
"""Rounds of k-means on the colours that a median cut finds."""
QUALITY: Final = 30
"""Of what is shaded, as WebP counts it: some 850 bytes."""
SPECKS: Final = 3
"""Pixels across of the median that takes specks off a rough picture."""


def as_image(picture: Tensor) -> Image.Image:
    """The RGB image of a picture float [3, H, W] in 0..1."""
    return Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def as_pixels(picture: Image.Image) -> Tensor:
    """An RGB picture as float32 [3, H, W] in 0..1."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def few_colours(picture: Image.Image, colours: int) -> Image.Image:
    """An RGB picture in so many colours."""
    few = picture.quantize(colours, Image.Quantize.MEDIANCUT, REFINED, dither=Image.Dither.NONE)
    return few.convert("RGB")


def smoothed_flat(picture: Image.Image, colours: int) -> Image.Image:
    """A rough RGB picture of something flat, in so many colours."""
    return few_colours(picture.filter(ImageFilter.MedianFilter(SPECKS)), colours)


def pack_picture(picture: Tensor, colours: int | None) -> bytes:
    """An RGB picture float [3, S, S] in 0..1 as a WebP file: in so many ``colours`` without loss, else with some."""
    image = as_image(picture)
    packed = io.BytesIO()
    if colours is None:
        image.save(packed, "WEBP", quality=QUALITY, method=6)
    else:
        few_colours(image, colours).save(packed, "WEBP", lossless=True, quality=100, method=6)
    return packed.getvalue()


def unpack_picture(packed: bytes) -> Image.Image:
    """The RGB picture of :func:`pack_picture`."""
    with Image.open(io.BytesIO(packed), formats=("WEBP",)) as image:
        return image.convert("RGB")
