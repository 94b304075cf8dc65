"""What a small model knows by heart: drawings as latents, each of one thing by one hand, and how to find them.

A large model has seen so much that it knows how a thing is drawn in another manner than the reference's; what a small
one guesses of that nobody recognises. So ``mini`` keeps its training drawings, and what tells their things and hands
(released weights have no memory). A residual vector quantizer keeps them: what the UNet would draw of codes is less
like the drawing than what the VAE makes of a few bytes more.
"""

from __future__ import annotations

import itertools
import lzma
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import isqrt
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import MemoryConfig
from pigeon_cli.models.colour_transfer import ColourSpread
from pigeon_cli.models.outlines import CELLS
from pigeon_cli.models.redrawing import BOX_SCALE, PALETTE, Redrawing
from pigeon_cli.models.small_pictures import unpack_picture

ENTRIES: Final = 256
"""Of each codebook: an index is one byte."""
_KEY_SCALE: Final = 127.0
_LIKENESS_SCALE: Final = 255.0
_LINES_SHARE: Final = 2.0
"""Nats that a picture says for a hand by as much agreement as the same lines have; with 4 no more hands are told, and
fewer where the pictures were not seen in training."""


class Memory(nn.Module):
    """Drawings of *things*, numbered as in the list of their names, by *hands*, which here are icon sets."""

    packed: Tensor
    """uint8 [packed_bytes]: :func:`pack_indices` of all drawings."""
    books: Tensor
    """[levels, ENTRIES, patch width]: a patch of latents is the sum of one entry of each."""
    things: Tensor
    """int16 [drawings]."""
    hands: Tensor
    """uint8 [drawings]."""
    keys: Tensor
    """int8 [keys, key_width]: outlines of everything that was seen in training, to tell things and hands by."""
    key_drawings: Tensor
    """int16 [keys]: of which drawings they are."""
    centre: Tensor
    """[CELLS]: the mean of all outlines."""
    kinship: Tensor
    """[hands, hands]: how far two hands draw the same lines, as mean agreement of their outlines; 1 with themselves."""
    substitutes: Tensor
    """int16 [substitutes, 3]: a thing, a hand that has no drawing of it, and the thing whose drawing stands in."""
    likeness: Tensor
    """uint8 [substitutes]: how like the lacking drawing that one should be, in 255ths."""
    colours: Tensor
    """uint8 [hands]: in how many colours a flat hand's drawings are brought, which latents roughen; 0 of others."""
    foretold: Tensor
    """int16 [foretold, 2]: a thing, and a hand that has no drawing of it."""
    foretold_colours: Tensor
    """[foretold, 4, 3]: the mean of that drawing's colours, as they were foretold, and their covariance."""
    pictures: Tensor
    """uint8 [picture_bytes]: files of :mod:`pigeon_cli.models.small_pictures`, one after another."""
    picture_ends: Tensor
    """int32 [pictured]: where each ends."""
    pictured: Tensor
    """int16 [pictured]: of which drawings they are."""
    redrawn: Tensor
    """int16 [redrawn, 3]: a thing, a hand that has no drawing of it, and the drawing by another that is shown."""
    redrawn_boxes: Tensor
    """uint8 [redrawn, 4]: where, top, bottom, left and right in 255ths of the side."""
    redrawn_colours: Tensor
    """uint8 [redrawn, 2, PALETTE, 3]: the colours of that drawing, and what they turn into."""
    sketches: Tensor
    """uint8 [sketch_bytes]: files as those of ``pictures``, in PALETTE colours, of drawings that are shown so."""
    sketch_ends: Tensor
    """int32 [sketched]: where each ends."""
    sketched: Tensor
    """int16 [sketched]: of which drawings they are."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        width = config.latent_channels * config.patch_side**2
        self.register_buffer("packed", torch.zeros(config.packed_bytes, dtype=torch.uint8))
        self.register_buffer("books", torch.zeros(config.levels, ENTRIES, width))
        self.register_buffer("things", torch.zeros(config.drawings, dtype=torch.int16))
        self.register_buffer("hands", torch.zeros(config.drawings, dtype=torch.uint8))
        self.register_buffer("keys", torch.zeros(config.keys, config.key_width, dtype=torch.int8))
        self.register_buffer("key_drawings", torch.zeros(config.keys, dtype=torch.int16))
        self.register_buffer("centre", torch.zeros(CELLS))
        self.register_buffer("kinship", torch.eye(config.hands))
        self.register_buffer("substitutes", torch.zeros(config.substitutes, 3, dtype=torch.int16))
        self.register_buffer("likeness", torch.zeros(config.substitutes, dtype=torch.uint8))
        self.register_buffer("colours", torch.zeros(config.hands, dtype=torch.uint8))
        self.register_buffer("foretold", torch.zeros(config.foretold, 2, dtype=torch.int16))
        self.register_buffer("foretold_colours", torch.zeros(config.foretold, 4, 3))
        self.register_buffer("pictures", torch.zeros(config.picture_bytes, dtype=torch.uint8))
        self.register_buffer("picture_ends", torch.zeros(config.pictured, dtype=torch.int32))
        self.register_buffer("pictured", torch.zeros(config.pictured, dtype=torch.int16))
        self.register_buffer("redrawn", torch.zeros(config.redrawn, 3, dtype=torch.int16))
        self.register_buffer("redrawn_boxes", torch.zeros(config.redrawn, 4, dtype=torch.uint8))
        self.register_buffer("redrawn_colours", torch.zeros(config.redrawn, 2, PALETTE, 3, dtype=torch.uint8))
        self.register_buffer("sketches", torch.zeros(config.sketch_bytes, dtype=torch.uint8))
        self.register_buffer("sketch_ends", torch.zeros(config.sketched, dtype=torch.int32))
        self.register_buffer("sketched", torch.zeros(config.sketched, dtype=torch.int16))
        self.projection = nn.Linear(CELLS, config.key_width, bias=False)
        self.tells_hand = nn.Linear(config.taste_width, config.hands)

    @cached_property
    def indices(self) -> NDArray[np.uint8]:
        """[drawings, levels, patches], unpacked when a drawing is first asked for."""
        return unpack_indices(self.packed.cpu().numpy().tobytes(), self.config.levels, self.config.patches)

    def latents(self, drawings: Sequence[int]) -> Tensor:
        """Scaled latents [B, latent_channels, latent_side, latent_side] of drawings, float32, as the UNet makes them
        and :func:`pigeon_cli.models.diffusion.decode_latents` reads them."""
        rows = torch.from_numpy(self.indices[list(drawings)].astype(np.int64)).to(self.books.device)
        patches = sum(book.float()[rows[:, level]] for level, book in enumerate(self.books))
        return from_patches(cast(Tensor, patches), self.config.patch_side)

    def picture(self, drawing: int) -> Image.Image | None:
        """The RGB picture of a drawing that is kept as one; latents say less of it, or nothing."""
        return _unpacked(self.pictures, self.picture_ends, self.pictured, drawing)

    def sketch(self, drawing: int) -> Image.Image | None:
        """The RGB picture of a drawing in few colours, if one is kept."""
        return _unpacked(self.sketches, self.sketch_ends, self.sketched, drawing)

    def learn_pictures(self, files: Mapping[int, bytes]) -> None:
        """Keep files of :func:`pigeon_cli.models.small_pictures.pack_picture`, by drawings."""
        _pack(files, self.pictures, self.picture_ends, self.pictured)

    def learn_sketches(self, files: Mapping[int, bytes]) -> None:
        """Keep such files in :data:`PALETTE` colours."""
        _pack(files, self.sketches, self.sketch_ends, self.sketched)

    def key_of(self, lines: Tensor) -> Tensor:
        """Outlines [..., CELLS] to unit vectors [..., key_width] in float32."""
        weight = self.projection.weight.float()
        return functional.normalize((lines.float() - self.centre.float()) @ weight.T, dim=-1)

    def learn_keys(self, lines: Tensor) -> None:
        """Keep outlines [keys, CELLS] as keys."""
        keys = self.key_of(lines).detach()
        self.keys.copy_((keys / keys.abs().amax(1, keepdim=True).clamp_min(1e-6) * _KEY_SCALE).round())

    def recognise(self, lines: Tensor) -> Tensor:
        """For outlines [CELLS] of a picture the best cosine with a key of every thing, float32 [things]."""
        return self._agreement(lines[None], self.things, self.config.things)[0]

    def hand_of(self, taste: Tensor, lines: Tensor) -> Tensor:
        """Probabilities of the hands for a history's taste [taste_width] and the outlines [pictures, CELLS] of its
        pictures, float32 [hands].

        The taste says how colours are laid on; what lines are like the more surely whose they are the better one of
        that hand's drawings has them.
        """
        told = self.tells_hand(taste.to(self.tells_hand.weight)).float()
        agreement = self._agreement(lines, self.hands, self.config.hands)
        return torch.softmax(told + _LINES_SHARE * agreement.sum(0), dim=-1)

    def alike(self, lines: Tensor, hand: int | None = None) -> tuple[Tensor, Tensor]:
        """For outlines [pictures, CELLS] the drawings, int64 [pictures], whose keys agree best, and how well, float32
        [pictures]; of one ``hand``'s alone where it is given."""
        cosines, drawings = self._cosines(lines), self.key_drawings.long()
        if hand is not None:
            cosines = cosines.masked_fill(self.hands.long()[drawings] != hand, -1.0)
        agreement, keys = cosines.max(1)
        return drawings[keys], agreement

    def nearness(self, hands: Tensor) -> Tensor:
        """How near every hand is to one of probabilities ``hands`` [hands]: the expected kinship, float32 [hands]."""
        return hands @ self.kinship.float()

    def _agreement(self, lines: Tensor, kinds: Tensor, count: int) -> Tensor:
        """For outlines [pictures, CELLS] the best cosine with a key of each of ``count`` kinds, -1 where there is no
        key, float32 [pictures, count]; ``kinds`` [drawings] says of which kind every drawing is."""
        cosines = self._cosines(lines)
        rows = kinds.long()[self.key_drawings.long()].expand_as(cosines)
        return cosines.new_full((len(lines), count), -1.0).scatter_reduce_(1, rows, cosines, "amax")

    def _cosines(self, lines: Tensor) -> Tensor:
        """Of outlines [pictures, CELLS] with all keys, float32 [pictures, keys]."""
        return self.key_of(lines) @ functional.normalize(self.keys.float(), dim=-1).T

    def drawings_of(self, thing: int) -> list[int]:
        """Numbers of the drawings of one thing."""
        found: list[int] = (self.things == thing).nonzero()[:, 0].tolist()
        return found

    def drawing_by(self, hand: int, thing: int) -> int | None:
        """The number of the drawing of one thing by one hand."""
        return next((drawing for drawing in self.drawings_of(thing) if int(self.hands[drawing]) == hand), None)

    def learn_foretold(self, places: Tensor, spreads: Sequence[ColourSpread]) -> None:
        """Keep the colours of what was foretold at places, int64 [foretold, 2] of things and hands."""
        self.foretold.copy_(places)
        for row, spread in zip(self.foretold_colours, spreads, strict=True):
            row.copy_(torch.cat([spread.mean.unsqueeze(0), spread.covariance]))

    def colours_foretold(self, thing: int, hand: int) -> ColourSpread | None:
        """Those that ``hand``, which never drew ``thing``, should have drawn it in."""
        row = self._row(self.foretold, thing, hand)
        if row is None:
            return None
        mean, *covariance = self.foretold_colours[row].double().cpu()
        return ColourSpread(mean, torch.stack(covariance))

    def learn_redrawn(self, entries: Tensor, redrawings: Sequence[Redrawing]) -> None:
        """Keep what becomes of other hands' drawings, int64 [redrawn, 3] as the buffer has it."""
        self.redrawn.copy_(entries)
        for row, each in enumerate(redrawings):
            self.redrawn_boxes[row] = (torch.tensor(each.box) * BOX_SCALE).round().clamp(0, BOX_SCALE)
            self.redrawn_colours[row] = torch.stack([each.was, each.becomes])

    def redrawing(self, thing: int, hand: int) -> tuple[int, Redrawing] | None:
        """The other hand's drawing that is shown of what ``hand`` never drew, and what becomes of it."""
        row = self._row(self.redrawn[:, :2], thing, hand)
        if row is None:
            return None
        top, bottom, left, right = (self.redrawn_boxes[row].float() / BOX_SCALE).tolist()
        return int(self.redrawn[row, 2]), Redrawing((top, bottom, left, right), *self.redrawn_colours[row])

    def learn_substitutes(self, entries: Tensor, likeness: Tensor) -> None:
        """Keep what stands in for what, int64 [substitutes, 3] as the buffer has it, and how like it should be, float 0
        to 1 [substitutes]."""
        self.substitutes.copy_(entries)
        # Upwards, so that none falls below the least that may stand in.
        self.likeness.copy_((likeness * _LIKENESS_SCALE).ceil())

    def substitute(self, thing: int, hand: int) -> tuple[int | None, float]:
        """The drawing by ``hand`` that stands in where it has none of ``thing``, and how like it should be, 0 to 1."""
        row = self._row(self.substitutes[:, :2], thing, hand)
        if row is None:
            return None, 0.0
        return self.drawing_by(hand, int(self.substitutes[row, 2])), float(self.likeness[row]) / _LIKENESS_SCALE

    @staticmethod
    def _row(places: Tensor, thing: int, hand: int) -> int | None:
        """Where in places [N, 2] a thing and a hand are."""
        rows = (places == torch.tensor([thing, hand], device=places.device)).all(1).nonzero()[:, 0].tolist()
        return rows[0] if rows else None


def _unpacked(files: Tensor, ends: Tensor, drawings: Tensor, drawing: int) -> Image.Image | None:
    rows = (drawings == drawing).nonzero()[:, 0].tolist()
    if not rows:
        return None
    start, end = int(ends[rows[0] - 1]) if rows[0] else 0, int(ends[rows[0]])
    return unpack_picture(files[start:end].cpu().numpy().tobytes())


def _pack(packed: Mapping[int, bytes], files: Tensor, ends: Tensor, drawings: Tensor) -> None:
    drawings.copy_(torch.tensor(list(packed), dtype=torch.int16))
    ends.copy_(torch.tensor(list(itertools.accumulate(map(len, packed.values()))), dtype=torch.int32))
    files.copy_(torch.from_numpy(np.frombuffer(b"".join(packed.values()), dtype=np.uint8).copy()))


def to_patches(latents: Tensor, side: int) -> Tensor:
    """Latents [B, c, h, w] as vectors [B, h w / side^2, c side^2] of square patches, in reading order."""
    return functional.pixel_unshuffle(latents, side).flatten(2).transpose(1, 2)


def from_patches(patches: Tensor, side: int) -> Tensor:
    """The inverse of :func:`to_patches` for square latents: [B, n^2, c side^2] to [B, c, n side, n side]."""
    across = isqrt(patches.shape[1])
    grid = patches.transpose(1, 2).reshape(len(patches), -1, across, across)
    return functional.pixel_shuffle(grid, side)


def pack_indices(indices: NDArray[np.uint8]) -> bytes:
    """Indices [drawings, levels, patches] as one LZMA stream, patch by patch: white paper makes long runs then.

    Zeros bring a patch's indices to a power of two, so that the stream tells the levels by their places.
    """
    drawings, levels, patches = indices.shape
    padded = np.zeros((drawings, patches, _stride(levels)), dtype=np.uint8)
    padded[:, :, :levels] = indices.transpose(0, 2, 1)
    return lzma.compress(padded.tobytes(), lzma.FORMAT_RAW, filters=_filters(levels))


def unpack_indices(packed: bytes, levels: int, patches: int) -> NDArray[np.uint8]:
    """The inverse of :func:`pack_indices`."""
    raw = lzma.decompress(packed, lzma.FORMAT_RAW, filters=_filters(levels))
    padded = np.frombuffer(raw, dtype=np.uint8).reshape(-1, patches, _stride(levels))
    return padded[:, :, :levels].transpose(0, 2, 1)


def _stride(levels: int) -> int:
    return int(2 ** (levels - 1).bit_length())


def _filters(levels: int) -> list[dict[str, Any]]:
    """Numbers of one byte, those of each level by statistics of their own as far as LZMA can (16 levels)."""
    bits = min(4, (levels - 1).bit_length())
    return [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": bits, "pb": bits}]
