"""The one way from an opened image to model input (NOTES 2.1; DESIGN.md section 2, table of departures)."""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor

from pigeon_cli.core.errors import UsageError

CHANNEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
CHANNEL_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
WIDE_GREY_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each EXIF orientation asks for; 1 is upright."""


def to_rgb(image: Image.Image, alpha: str = "white") -> Image.Image:
    """Any Pillow image to mode RGB.

    ``alpha`` is "white" or "#RRGGBB": the EXIF rotation is applied, grey of more than 8 bits is scaled down, and
    transparent pixels (alpha channels, palette or key-colour transparency) lie over that colour. "drop" is the
    published program's ``convert("RGB")`` and nothing else: no rotation, hidden colours show, wide grey clips.
    Raises UsageError for another ``alpha``.
    """
    if alpha == "drop":
        return image.convert("RGB")
    colour = matte_colour(alpha)
    image = upright(image)
    if image.mode in WIDE_GREY_MODES:
        image = _narrowed(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    matte = Image.new("RGBA", layer.size, (*colour, 255))
    return Image.alpha_composite(matte, layer).convert("RGB")


def _narrowed(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits to mode L, or to LA where one of its values is the key colour of what is clear."""
    grey, key = narrow_grey(image), image.info.get("transparency")
    if isinstance(key, int):
        grey.putalpha(Image.fromarray((np.asarray(image) != key).astype(np.uint8) * 255))
    return grey


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says; as it is stored where that cannot be read, as browsers show it.

    ``ImageOps.exif_transpose`` fails there, and where any other EXIF tag cannot be written again.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    # Pillow raises whatever the damage makes it trip over: syntax, value and struct errors among them.
    except Exception:
        return image
    turn = TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def matte_colour(alpha: str) -> tuple[int, int, int]:
    """Red, green, blue of "white" or "#RRGGBB"."""
    if alpha == "white" or (alpha.startswith("#") and len(alpha) == 7):
        try:
            red, green, blue = ImageColor.getrgb(alpha)[:3]
        except ValueError:
            pass
        else:
            return red, green, blue
    raise UsageError(f"Unknown background {alpha!r}.", 'Use "white", "drop", or a colour such as "#FFE4B5".')


def narrow_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, 32 bits or float to mode L.

    Pillow opens 16-bit files as ``I;16`` or, from some formats, as ``I``; values up to 255 in ``I`` and ``F`` are
    taken as 8-bit grey, larger ones as 16-bit.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=65535.0, neginf=0.0)
    sixteen = image.mode.startswith("I;16") or float(values.max(initial=0.0)) > 255
    scaled = values * (255.0 / 65535.0) if sixteen else values
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def to_shares(image: Image.Image, size: int) -> NDArray[np.float32]:
    """RGB image to float32 [3, size, size] in 0..1: bicubic resize, aspect ratio ignored."""
    resized = image.resize((size, size), Image.Resampling.BICUBIC)
    values: NDArray[np.float32] = np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1).astype(np.float32)
    values /= np.float32(255)
    return values


def to_pixels(image: Image.Image, size: int) -> NDArray[np.float32]:
    """RGB image to float32 [3, size, size]: :func:`to_shares`, then :func:`normalised`."""
    return normalised(to_shares(image, size))


def normalised(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """RGB float32 [3, H, W] in 0..1 by CLIP's mean and deviation."""
    mean = np.array(CHANNEL_MEAN, dtype=np.float32)[:, None, None]
    deviation = np.array(CHANNEL_DEVIATION, dtype=np.float32)[:, None, None]
    return np.ascontiguousarray((shares - mean) / deviation)
