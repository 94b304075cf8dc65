"""SVG bodies -> RGBA images, on all cores."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from pigeon_cli.core.errors import InputError
from pigeon_cli.training.data.packages import Icon

_OVERSAMPLING = 2


def render_icon(icon: Icon, size: int) -> NDArray[np.uint8]:
    """uint8 [size, size, 4], straight alpha over transparency: centred, aspect kept, ``currentColor`` black.

    Raises InputError when the SVG cannot be drawn.
    """
    large = size * _OVERSAMPLING
    box = " ".join(f"{value:g}" for value in icon.box)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="black" '
        f'width="{large}" height="{large}" viewBox="{box}">{icon.body}</svg>'
    )
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    except ValueError as error:
        raise InputError(f"icon {icon.set}/{icon.name} cannot be drawn: {error}", "fetch the package again") from error
    # Pillow shrinks RGBA with premultiplied alpha, so edges take no colour from transparent pixels.
    image = Image.open(io.BytesIO(png)).convert("RGBA").resize((size, size), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.uint8)


def render_all(
    icons: Sequence[Icon], size: int, target: NDArray[np.uint8], progress: Callable[[int, int], None]
) -> None:
    """Fill ``target`` uint8 [N, size, size, 4] with the ``icons``; ``progress(done, total)`` is called as they come."""
    # spawn: a forked child would inherit the threads and locks of torch.
    context = multiprocessing.get_context("spawn")
    with context.Pool() as pool:
        drawn = pool.imap(partial(render_icon, size=size), icons, chunksize=64)
        for number, image in enumerate(drawn):
            target[number] = image
            if number % 500 == 499 or number + 1 == len(icons):
                progress(number + 1, len(icons))
