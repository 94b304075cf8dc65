"""What each kind of look does to a batch of premultiplied images, float32 [B, 4, S, S] in 0..1 -> the same.

Training dresses its pictures by them; the pipeline does a look by some of them that it read off a history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

LUMINANCE = (0.299, 0.587, 0.114)
_KEEP_INSIDE = 0.94
# Below paper white, so that a white drawing keeps its shape.
_POSTER_WHITE = 0.92


def straight(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Colours that are not multiplied, [B, 3, S, S], and alpha [B, 1, S, S]."""
    alpha = image[:, 3:]
    return (image[:, :3] / alpha.clamp_min(1 / 512)).clamp(0, 1), alpha


def premultiplied(colour: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`straight`."""
    return torch.cat([colour * alpha, alpha], dim=1)


def _column(colour: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.float32, device=like.device).view(1, 3, 1, 1)


def brightness(colour: torch.Tensor) -> torch.Tensor:
    """Brightness [B, 1, S, S] of colours [B, 3, S, S]."""
    return (colour * _column(LUMINANCE, colour)).sum(dim=1, keepdim=True)


def _gradient_map(grey: torch.Tensor, colours: Sequence[Sequence[float]]) -> torch.Tensor:
    """Grey 0..1 to a straight line through ``colours``, darkest first."""
    place = grey * (len(colours) - 1)
    result = torch.zeros_like(grey).expand(-1, 3, -1, -1)
    for number, colour in enumerate(colours):
        result = result + (1 - (place - number).abs()).clamp_min(0) * _column(colour, grey)
    return result


def tint(image: torch.Tensor, colour: Sequence[float], strength: float) -> torch.Tensor:
    """Mix every pixel with ``colour``, keeping light and dark apart."""
    old, alpha = straight(image)
    shaded = _column(colour, image) * (0.35 + 0.65 * brightness(old))
    return premultiplied(torch.lerp(old, shaded, strength), alpha)


def palette(image: torch.Tensor, colours: Sequence[Sequence[float]], strength: float) -> torch.Tensor:
    """Draw with three or four colours, chosen by brightness, mixed into the old ones."""
    old, alpha = straight(image)
    return premultiplied(torch.lerp(old, _gradient_map(brightness(old), colours), strength), alpha)


def duotone(image: torch.Tensor, dark: Sequence[float], light: Sequence[float]) -> torch.Tensor:
    """Two inks only: shadows ``dark``, lights ``light``."""
    old, alpha = straight(image)
    grey = ((brightness(old) - 0.5) * 1.25 + 0.5).clamp(0, 1)
    return premultiplied(_gradient_map(grey, [dark, light]), alpha)


def hue(image: torch.Tensor, degrees: float, saturation: float) -> torch.Tensor:
    """Turn the colour wheel and scale its strength; grey stays grey."""
    old, alpha = straight(image)
    # Rotation about the grey axis of the colour cube (Rodrigues).
    cosine, sine, third = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), math.sqrt(1 / 3)
    base, side = (1 - cosine) / 3, sine * third
    rows = [[cosine + base, base - side, base + side], [base + side, cosine + base, base - side]]
    rows.append([base - side, base + side, cosine + base])
    turned = torch.einsum("oc,bchw->bohw", torch.tensor(rows, dtype=torch.float32, device=image.device), old)
    return premultiplied(torch.lerp(brightness(old), turned, saturation).clamp(0, 1), alpha)


def posterise(image: torch.Tensor, levels: int, saturation: float) -> torch.Tensor:
    """``levels`` strong steps per channel instead of smooth shades."""
    old, alpha = straight(image)
    strong = torch.lerp(brightness(old), old, saturation).clamp(0, 1)
    steps = (strong * levels).floor().clamp_max(levels - 1)
    return premultiplied(steps * (_POSTER_WHITE / (levels - 1)), alpha)


def moved(image: torch.Tensor, scale: float, degrees: float) -> torch.Tensor:
    """The picture ``scale`` times as large and turned clockwise about its centre."""
    cosine, sine = math.cos(math.radians(degrees)) / scale, math.sin(math.radians(degrees)) / scale
    matrix = torch.tensor([[cosine, sine, 0.0], [-sine, cosine, 0.0]], device=image.device)
    # One grid for the whole batch: images become channels of one picture.
    count, channels, height, width = image.shape
    flat = image.reshape(1, count * channels, height, width)
    grid = functional.affine_grid(matrix[None], [1, 1, height, width], align_corners=False)
    moved = functional.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.reshape(image.shape)


def margin(image: torch.Tensor, scale: float) -> torch.Tensor:
    """Smaller on its canvas."""
    height, width = image.shape[2:]
    inner = (2 * round(height * scale / 2), 2 * round(width * scale / 2))
    small = functional.interpolate(image, inner, mode="bilinear", antialias=True, align_corners=False)
    rows, columns = (height - inner[0]) // 2, (width - inner[1]) // 2
    return functional.pad(small, (columns, columns, rows, rows))


def tilt(image: torch.Tensor, degrees: float) -> torch.Tensor:
    """Turned clockwise, and a little smaller so that corners stay on the canvas."""
    return moved(image, _KEEP_INSIDE, degrees)


def pixelation(image: torch.Tensor, cells: int) -> torch.Tensor:
    """``cells`` x ``cells`` large square pixels with hard edges."""
    small = functional.adaptive_avg_pool2d(image, cells)
    alpha = small[:, 3:]
    hard = (alpha > 0.5).float()
    blocks = premultiplied((small[:, :3] / alpha.clamp_min(1 / 512)).clamp(0, 1), hard)
    return functional.interpolate(blocks, image.shape[2:], mode="nearest")


def blurred(image: torch.Tensor, radius: float) -> torch.Tensor:
    """Gaussian blur of deviation ``radius`` (share of the side), on square images.

    As two products with a band matrix: on a CPU many times faster than a convolution over single channels.
    """
    side = image.shape[2]
    band = _band(side, radius * side, image.device) / (radius * side * math.sqrt(2 * math.pi))
    return band @ image @ band.T


def mixed(image: torch.Tensor, pixels: float) -> torch.Tensor:
    """Blurred by so few ``pixels`` that what a pixel gets of its neighbours must be made to sum up to one."""
    band = _band(image.shape[2], pixels, image.device)
    band = band / band.sum(1, keepdim=True)
    return band @ image @ band.T


def _band(side: int, pixels: float, device: torch.device) -> torch.Tensor:
    """How much a pixel counts in another's Gaussian mean, [side, side], the middle one 1."""
    places = torch.arange(side, device=device, dtype=torch.float32)
    return torch.exp(-((places[:, None] - places[None]) ** 2) / (2 * pixels**2))


def beside(marked: torch.Tensor) -> torch.Tensor:
    """The largest of a pixel and the four beside it, [B, 1, S, S]."""
    across = functional.max_pool2d(marked, (1, 3), stride=1, padding=(0, 1))
    return torch.maximum(across, functional.max_pool2d(marked, (3, 1), stride=1, padding=(1, 0)))


def dilated(marked: torch.Tensor, pixels: int) -> torch.Tensor:
    """The largest within so many ``pixels`` of each, right and left, up and down, [B, 1, S, S]."""
    return functional.max_pool2d(marked, 2 * pixels + 1, stride=1, padding=pixels)


def softness(image: torch.Tensor, radius: float) -> torch.Tensor:
    """Out of focus."""
    return blurred(image, radius)


def _over(front: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    return front + back * (1 - front[:, 3:])


def _shrunk(image: torch.Tensor) -> torch.Tensor:
    """Room at the border for what is drawn around the picture."""
    return margin(image, _KEEP_INSIDE - 0.06)


def shadow(
    image: torch.Tensor, shift: Sequence[float], blur: float, colour: Sequence[float], opacity: float
) -> torch.Tensor:
    """A soft shadow, moved by ``shift`` (right, down)."""
    image = _shrunk(image)
    height, width = image.shape[2:]
    shifted = torch.roll(image[:, 3:], (round(shift[1] * height), round(shift[0] * width)), dims=(2, 3))
    return _over(image, premultiplied(_column(colour, image), blurred(shifted, blur) * opacity))


def outline(image: torch.Tensor, colour: Sequence[float], width: float) -> torch.Tensor:
    """A contour of one colour round the drawing, ``width`` of the side thick."""
    image = _shrunk(image)
    reach = max(1, round(width * image.shape[2]))
    # A square and a diamond dilation, alternating, come close to a disc.
    grown = image[:, 3:]
    for step in range(reach):
        grown = beside(grown) if step % 3 else functional.max_pool2d(grown, 3, stride=1, padding=1)
    return _over(image, premultiplied(_column(colour, image), grown))


def background(image: torch.Tensor, colour: Sequence[float], second: Sequence[float], angle: float) -> torch.Tensor:
    """A full sheet behind the drawing: ``colour`` fading to ``second`` along ``angle`` (degrees)."""
    height, width = image.shape[2:]
    across = torch.linspace(-1, 1, width, device=image.device).view(1, 1, 1, -1) * math.cos(math.radians(angle))
    down = torch.linspace(-1, 1, height, device=image.device).view(1, 1, -1, 1) * math.sin(math.radians(angle))
    share = ((across + down) / 2 + 0.5).clamp(0, 1)
    sheet = torch.lerp(_column(colour, image), _column(second, image), share)
    return _over(image, torch.cat([sheet, torch.ones_like(share)], dim=1))
