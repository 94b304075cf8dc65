"""What a history does to its drawings, done to the recalled drawing (image analogies: Hertzmann et al. 2001).

Where the memory knows the plain drawings that liked pictures are of, the two tell a look much more exactly than an
image generator of twelve million weights draws it, and the recalled drawing keeps its lines. The more of the reference
is hidden, the more of what was drawn shows through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pigeon_cli.core.records import Candidate, TokenMask
from pigeon_cli.engine.residency import VAE, Parts
from pigeon_cli.history.preprocess import to_shares
from pigeon_cli.models.colour_maps import read_line
from pigeon_cli.models.colour_transfer import recoloured, spread_within
from pigeon_cli.models.look_reader import SIDE, read_cells, read_look
from pigeon_cli.models.memory import Memory
from pigeon_cli.models.paper import on_paper, read_paper, stands_out
from pigeon_cli.models.small_pictures import as_image, as_pixels
from pigeon_cli.models.worn_look import WornLook, cut_out
from pigeon_cli.pipeline.decode import kept_places, to_images

LEAST_ALIKE: Final = 0.65
"""Least agreement of a liked picture's outlines with those of the drawing, by the history's hand, that it is taken
for."""
MOST_PICTURES: Final = 8
"""Of those, from which a look is read."""
LARGEST_ERROR: Final = 0.2
"""Of a look, as a share of what is drawn on the sheet, up to which it is taken: above it, the image generator draws as
well (20 of 328 valid requests), and better where all drawings have an outline, which no part of a look explains."""


def pixels_of(pictures: Sequence[Image.Image]) -> Tensor:
    """RGB pictures as float32 [pictures, 3, SIDE, SIDE] in 0..1."""
    return torch.stack([torch.from_numpy(to_shares(picture, SIDE)) for picture in pictures])


@dataclass(frozen=True)
class WornDrawing:
    """A plain RGB drawing, and the look in which it is to be seen."""

    drawing: Image.Image
    look: WornLook
    framed: bool = False
    """Whether it is on its paper already as the history's are on theirs, and its colours are to be those that the image
    generator gives it: no hand that is known drew it, or nothing is known of what befell the history's."""
    over: bool = False
    """Whether what the image generator draws around it stays, up to the paper if that was read, since nothing else is
    known of what befell the history's."""


def look_of(parts: Parts, memory: Memory, pixels: Tensor, lines: Tensor, hand: int) -> WornLook | None:
    """The look of a history drawn by ``hand``, by :func:`pixels_of` its pictures and their outlines ``lines``
    [pictures, CELLS]; ``None`` where the memory knows none of their plain drawings, or no look explains them."""
    drawings, agreement = memory.alike(lines, hand)
    known = [place for place in agreement.argsort(descending=True).tolist() if float(agreement[place]) >= LEAST_ALIKE]
    known = sorted(known[:MOST_PICTURES])
    if not known:
        return None
    with parts.use(VAE) as vae:
        plain = to_images(vae, memory.latents([int(drawings[place]) for place in known]), 1)
    look = read_look(cut_out(pixels_of(plain)), pixels[known])
    return look if look is not None and look.error <= LARGEST_ERROR else None


def unread_look(pixels: Tensor) -> WornLook:
    """What can be told of a look by :func:`pixels_of` a history alone."""
    return WornLook(read_line(pixels), cells=read_cells(pixels), sheet=read_paper(pixels))


def covers(worn: WornDrawing, mask: TokenMask | None, grid: int) -> bool:
    """Whether nothing is seen of what the image generator draws of a candidate with such reference tokens."""
    return not worn.framed and bool(_kept(mask, grid).all())


def in_look(
    drawn: Sequence[Image.Image], candidates: Sequence[Candidate], worn: WornDrawing, grid: int
) -> list[Image.Image]:
    """RGB images with the ``worn`` drawing over them, by the candidates' reference tokens: as it is where they are
    kept, and where they are hidden the thinner the more of them are, so that nothing of it is seen where all are. One
    token is one of ``grid`` x ``grid`` patches."""
    look = replace(worn.look, degrees=0, scale=1.0) if worn.framed else worn.look
    drawing = look.on_sheet(cut_out(pixels_of([worn.drawing])))
    if worn.over:
        drawn = [as_image(look.coloured(as_pixels(image)[None])[0]) for image in drawn]
    if worn.framed:
        seen = [_as_coloured(drawing, look, image, worn.over) for image in drawn]
    else:
        seen = [look.finished(drawing)[0]] * len(drawn)
    masks = [candidate.reference_tokens for candidate in candidates]
    return [_over(image, above, mask, grid) for image, above, mask in zip(drawn, seen, masks, strict=True)]


def _as_coloured(drawing: Tensor, look: WornLook, image: Image.Image, over: bool) -> Tensor:
    """A premultiplied ``drawing`` [1, 4, S, S] in the colours that an RGB image has there, as a picture [3, S, S]; in
    its own where it would not be seen in those."""
    behind = pixels_of([image])
    wanted = spread_within(behind[0], drawing)
    above = drawing if wanted is None else recoloured(drawing, wanted)
    if over and look.sheet is None:
        return look.finished(above, behind)[0]
    sheet = look.behind(behind)
    if not stands_out(above, sheet):
        above = drawing
    # Nothing soft is around drawings in large pixels.
    if over and look.cells is None:
        sheet = on_paper(behind, sheet, drawing[:, 3:])
    return look.finished(above, sheet)[0]


def _over(image: Image.Image, above: Tensor, mask: TokenMask | None, grid: int) -> Image.Image:
    size, kept = (image.height, image.width), _kept(mask, grid)
    shares = functional.interpolate(kept + (1 - kept) * kept.mean(), size, mode="bilinear")[0]
    known = functional.interpolate(above.unsqueeze(0), size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    return as_image(torch.lerp(as_pixels(image), known, shares))


def _kept(mask: TokenMask | None, grid: int) -> Tensor:
    """Float [1, 1, grid, grid]: 1 where a patch is kept."""
    return torch.ones(1, 1, grid, grid) if mask is None else kept_places([mask], grid**2).view(1, 1, grid, grid)
