"""Preprocessing against the recorded bytes, and the departures of the product path."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pigeon_cli.core.errors import UsageError
from pigeon_cli.history.preprocess import CHANNEL_DEVIATION, CHANNEL_MEAN, to_pixels, to_rgb
from tests.parity.golden import IMAGE_FILES, IMAGES, MINI_ONLY, Array, Goldens

WHITE = (255, 255, 255)


def normalise(values: Array) -> Array:
    """(u8 / 255 - mean) / deviation of uint8 [3, H, W], as float32."""
    mean = np.array(CHANNEL_MEAN, np.float32)[:, None, None]
    deviation = np.array(CHANNEL_DEVIATION, np.float32)[:, None, None]
    return np.asarray((values.astype(np.float32) / np.float32(255) - mean) / deviation)


@MINI_ONLY
@pytest.mark.parametrize("index", range(8))
def test_published_path_is_equal_bit_for_bit(goldens: Goldens, index: int) -> None:
    golden = goldens.load_shared("01_preprocess")
    with Image.open(IMAGES / IMAGE_FILES[index]) as image:
        pixels = to_pixels(to_rgb(image, "drop"), 224)
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, normalise(golden[f"u8_img{index}"]))
    sample = golden[f"pix_img{index}"]
    stride = int(golden[f"pix_img{index}__stride"])
    assert np.array_equal(pixels.reshape(-1)[::stride][: len(sample)], sample)


def test_transparent_pixels_lie_over_white_or_the_given_colour() -> None:
    image = Image.new("RGBA", (4, 4), (10, 200, 30, 0))
    image.putpixel((0, 0), (10, 200, 30, 255))
    assert to_rgb(image).getpixel((1, 1)) == WHITE
    assert to_rgb(image).getpixel((0, 0)) == (10, 200, 30)
    assert to_rgb(image, "#102030").getpixel((1, 1)) == (16, 32, 48)
    assert to_rgb(image, "drop").getpixel((1, 1)) == (10, 200, 30)


def test_palette_and_grey_transparency_is_seen() -> None:
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.info["transparency"] = 0
    assert [to_rgb(palette).getpixel((x, 0)) for x in range(2)] == [WHITE, (200, 0, 0)]
    grey = Image.new("LA", (1, 1), (0, 0))
    assert to_rgb(grey).getpixel((0, 0)) == WHITE


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    image = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert [to_rgb(image).getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (128, 128, 128), WHITE]
    with Image.open(IMAGES / "extra_gray16_120x100.png") as recorded:
        wide = np.asarray(recorded).astype(np.float64)
        narrow = np.asarray(to_rgb(recorded))[..., 0]
    assert np.abs(narrow - wide * 255 / 65535).max() <= 0.5


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGB", "I", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    rgb = to_rgb(Image.new("RGB", (3, 2), WHITE).convert(mode))
    assert rgb.mode == "RGB" and rgb.size == (3, 2)
    assert rgb.getpixel((1, 1)) == WHITE


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (3, 2), WHITE)
    image.getexif()[0x0112] = 6
    assert to_rgb(image).size == (2, 3)


def test_unknown_background_is_refused() -> None:
    with pytest.raises(UsageError):
        to_rgb(Image.new("RGB", (1, 1)), "#12345")
