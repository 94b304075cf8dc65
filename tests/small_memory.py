"""A memory of a few drawings, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from pigeon_cli.core.configs import MemoryConfig
from pigeon_cli.models.colour_transfer import ColourSpread
from pigeon_cli.models.memory import ENTRIES, Memory, pack_indices, to_patches
from pigeon_cli.models.outlines import outlines
from pigeon_cli.models.redrawing import Redrawing

PATCH_SIDE = 2
NO_PICTURES: Mapping[int, bytes] = MappingProxyType({})
NOTHING_REDRAWN: Mapping[tuple[int, int], tuple[int, Redrawing]] = MappingProxyType({})
NOTHING_FORETOLD: Mapping[tuple[int, int], ColourSpread] = MappingProxyType({})


def small_memory(
    things: int,
    keys: int,
    drawings: Sequence[tuple[int, int]],
    latents: Tensor | None = None,
    hands: int = 3,
    taste_width: int = 3,
    substitutes: int = 0,
    foretold: Mapping[tuple[int, int], ColourSpread] = NOTHING_FORETOLD,
    pictures: Mapping[int, bytes] = NO_PICTURES,
    redrawn: Mapping[tuple[int, int], tuple[int, Redrawing]] = NOTHING_REDRAWN,
    sketches: Mapping[int, bytes] = NO_PICTURES,
) -> Memory:
    """A memory of ``drawings``, each a thing and a hand, and of the colours ``foretold`` by such; it recognises
    nothing. Those of ``pictures`` are kept as pictures, of ``sketches`` in few colours; by places of ``redrawn`` a
    drawing is kept and what becomes of it.

    ``latents`` [drawings, c, h, w], by default of one patch of zeros, have 256 patches at most and are kept as they
    are: each patch is an entry of the only codebook.
    """
    kept = torch.zeros(len(drawings), 1, PATCH_SIDE, PATCH_SIDE) if latents is None else latents
    patches = to_patches(kept, PATCH_SIDE)
    count = patches.shape[0] * patches.shape[1]
    assert count <= ENTRIES
    packed = pack_indices(torch.arange(count, dtype=torch.uint8).reshape(len(drawings), 1, -1).numpy())
    config = MemoryConfig(
        len(drawings), 1, kept.shape[1], kept.shape[2], PATCH_SIDE, len(packed), things, keys, 40, hands, taste_width,
        substitutes, len(foretold), len(pictures), sum(map(len, pictures.values())), len(redrawn), len(sketches),
        sum(map(len, sketches.values())),
    )  # fmt: skip
    memory = Memory(config)
    memory.packed.copy_(torch.frombuffer(bytearray(packed), dtype=torch.uint8))
    memory.books[0, :count] = patches.flatten(0, 1)
    memory.things.copy_(torch.tensor([thing for thing, _ in drawings]))
    memory.hands.copy_(torch.tensor([hand for _, hand in drawings]))
    memory.learn_foretold(torch.tensor(list(foretold), dtype=torch.int64).view(-1, 2), list(foretold.values()))
    memory.learn_pictures(pictures)
    memory.learn_sketches(sketches)
    entries = torch.tensor([[*place, drawing] for place, (drawing, _) in redrawn.items()], dtype=torch.int64)
    memory.learn_redrawn(entries.view(-1, 3), [redrawing for _, redrawing in redrawn.values()])
    return memory.requires_grad_(False)


def knowing(pictures: Tensor) -> Memory:
    """A memory of RGB pictures [B, 3, S, S] in 0..1, each another thing, all by hand 0; told by their lines."""
    memory = small_memory(len(pictures), len(pictures), [(number, 0) for number in range(len(pictures))])
    torch.nn.init.orthogonal_(memory.projection.weight)
    lines = outlines(pictures)
    memory.centre.copy_(lines.mean(0))
    memory.learn_keys(lines)
    memory.key_drawings.copy_(torch.arange(len(pictures)))
    return memory
