"""Drawings in another finish of the same hand, for the memory: what an icon set lacks and a sibling of it has.

A network of its own learns it from pairs (stage ``finish``): the UNet, which is to take the lines of whatever it is
shown, takes the shading of a sibling's drawing along. What has to be shaded anew it leaves as it is, though, since that
is hardly wrong on the average: there the UNet is better. The network makes the memory and is not shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.pipeline.recall import NEAR
from pigeon_cli.training.data.dataset import IconRecord, grouped
from pigeon_cli.training.data.sets import HANDS, ICON_SETS
from pigeon_cli.training.figures import to_images
from pigeon_cli.training.loop import MovingAverage, load_from_run

WIDTHS: Final = (24, 48, 96, 128, 128)
"""Of the feature maps, each with half the side of the one before."""
GROUPS: Final = 8
"""Of channels that are normed together."""
SHADED: Final = frozenset({"fluent-emoji"})
"""Hands whose finishes the UNet draws."""
FLAT_COLOURS: Final = {"fluent-emoji-flat": 6}
"""Hands that lay on flat colours, and to how many each picture of theirs is brought."""
SMALLEST: Final = 3
"""Pixels of the square in which the colour that most have wins, so that no border of two colours is left."""
DETAIL: Final = 0.25
"""Change of a colour from which on it was no shade: eyes and mouths stay."""


class FinishNetwork(nn.Module):
    """Plain pictures by one hand to what another makes of the same lines: a U-Net that adds what differs."""

    def __init__(self) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.reads = nn.Conv2d(3 + len(HANDS), first, 3, padding=1)
        self.down = nn.ModuleList(_Block(*pair) for pair in zip((first, *WIDTHS[:-1]), WIDTHS, strict=True))
        pairs = zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True)
        self.up = nn.ModuleList(_Block(deep + wide, wide) for deep, wide in pairs)
        self.adds = nn.Conv2d(first, 3, 3, padding=1)
        # At first nothing changes.
        for parameter in self.adds.parameters():
            nn.init.zeros_(parameter)

    def forward(self, pictures: Tensor, hands: Tensor) -> Tensor:
        """Pictures [B, 3, S, S] about 0..1 and numbers of the wanted hands, int64 [B], to pictures; S is a multiple
        of 16.
        """
        told = functional.one_hot(hands, len(HANDS)).to(pictures)[:, :, None, None]
        values = self.reads(torch.cat([pictures * 2 - 1, told.expand(-1, -1, *pictures.shape[2:])], dim=1))
        kept = []
        for number, block in enumerate(self.down):
            values = block(values if number == 0 else functional.avg_pool2d(values, 2))
            kept.append(values)
        for block, beside in zip(self.up, kept[-2::-1], strict=True):
            values = block(torch.cat([functional.interpolate(values, scale_factor=2.0), beside], dim=1))
        changed: Tensor = pictures + self.adds(values)
        return changed


class _Block(nn.Module):
    def __init__(self, width: int, wanted: int) -> None:
        super().__init__()
        self.conv0, self.conv1 = nn.Conv2d(width, wanted, 3, padding=1), nn.Conv2d(wanted, wanted, 3, padding=1)
        self.norm0, self.norm1 = nn.GroupNorm(GROUPS, wanted), nn.GroupNorm(GROUPS, wanted)
        self.skips = nn.Conv2d(width, wanted, 1)

    def forward(self, values: Tensor) -> Tensor:
        """[B, width, h, w] to [B, wanted, h, w]."""
        inner = self.norm1(self.conv1(functional.silu(self.norm0(self.conv0(values)))))
        return functional.silu(inner + self.skips(values))


@dataclass(frozen=True)
class Finisher:
    """A trained network that does what a :data:`pigeon_cli.training.memory.Finish` does."""

    network: FinishNetwork

    @torch.no_grad()
    def __call__(self, pictures: Tensor, hand: int) -> Tensor:
        """Plain pictures [B, 3, S, S] in 0..1 as ``hand`` would finish them, of the same shape."""
        hands = torch.full((len(pictures),), hand, device=pictures.device)
        changed: Tensor = self.network(pictures, hands)
        colours = FLAT_COLOURS.get(HANDS[hand])
        return changed.clamp(0, 1) if colours is None else _flattened(changed.clamp(0, 1), colours)


@dataclass(frozen=True)
class Finishes:
    """Every hand by what makes its finishes best."""

    learned: Finisher
    drawn: Callable[[Tensor, int], Tensor]
    """A :class:`pigeon_cli.training.drawn_finishes.UNetFinisher`."""

    def __call__(self, pictures: Tensor, hand: int) -> Tensor:
        """As that of a :class:`Finisher`."""
        return self.drawn(pictures, hand) if HANDS[hand] in SHADED else self.learned(pictures, hand)


def _flattened(pictures: Tensor, colours: int) -> Tensor:
    """Pictures [B, 3, S, S] in 0..1 in few flat colours each."""
    flat = []
    for whole in to_images(pictures):
        image = whole.filter(ImageFilter.MedianFilter(SMALLEST))
        few = image.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
        image = few.convert("RGB").filter(ImageFilter.ModeFilter(SMALLEST))
        flat.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255)
    reduced = torch.stack(flat).to(pictures.device)
    return torch.where((reduced - pictures).abs().amax(1, keepdim=True) > DETAIL, pictures, reduced)


def load_finisher(checkpoint: Path, device: torch.device) -> Finisher | None:
    """The network of the stage ``finish`` as its run left it, averaged; ``None`` where there is no such run.

    Raises :class:`InputError` for a checkpoint that holds no such network.
    """
    if not checkpoint.is_file():
        return None
    network = FinishNetwork().to(device)
    average = MovingAverage(network).to(device)
    load_from_run(average, checkpoint, "average", "network of the stage finish", "pigeon train finish")
    network.load_state_dict(average.state_of(network))
    return Finisher(network.requires_grad_(False).eval())


def worth_making(hand: int, source: int, kin: Tensor) -> bool:
    """Whether a drawing that ``hand`` lacks is made from one by ``source``: another finish of the same lines.

    ``kin`` [hands, hands]: :func:`pigeon_cli.training.memory.kinship`.
    """
    one, other = ICON_SETS[HANDS[hand]], ICON_SETS[HANDS[source]]
    return hand != source and one.family == other.family and float(kin[hand, source]) >= NEAR


def sibling_pairs(
    sources: Sequence[IconRecord], wanted: Sequence[IconRecord], kin: Tensor
) -> list[tuple[IconRecord, IconRecord]]:
    """Drawings among ``sources`` and ``wanted`` of one thing, of which the second is worth making from the first."""
    by_thing = grouped(sources, "meaning")
    return [
        (source, record)
        for record in wanted
        for source in by_thing.get(record.meaning, ())
        if worth_making(HANDS.index(record.set), HANDS.index(source.set), kin)
    ]
