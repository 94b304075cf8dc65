"""How a hand would draw what it never drew: foretold from what other hands make of the thing, and from what this hand
makes of things that others draw alike.

A network of training alone (stage ``foretell``), which makes drawings whose colours the memory keeps. It draws in
the hand's own places and colours, where another hand's drawing never is; that it decides where much is likely, instead
of smearing, it learns from a critic (:mod:`pigeon_cli.training.drawing_critic`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import DiffusionConfig
from pigeon_cli.training.data.dataset import IconRecord
from pigeon_cli.training.data.sets import HANDS
from pigeon_cli.training.loop import MovingAverage, load_from_run
from pigeon_cli.training.substitutes import DrawnThings

SIDE: Final = 2
"""Places of the latents in one place of the network, each way."""
WIDTH, BLOCKS, GROUPS = 384, 10, 16
"""Channels of the network, its residual blocks, and how many groups of channels are normed."""
ATTENDS, HEAD = 3, 64
"""Every so many blocks all places attend to one another, by heads of so many channels at most."""
DROPOUT: Final = 0.1
"""Of whole channels."""
EXAMPLES, LISTED = 4, 8
"""Drawings by the hand itself that are shown, and among how many of the likeliest training chooses them."""
SHOWN: Final = len(HANDS) + EXAMPLES
FAR: Final = -1e3
AT_ONCE: Final = 64


@dataclass(frozen=True)
class DrawnTable:
    """Which hand has drawn what, by numbers of train drawings, -1 where there is none."""

    rows: Tensor
    """int64 [things, hands]."""
    examples: Tensor
    """int64 [things, hands, LISTED]: the hand's drawings that its drawing of the thing should be like, the likeliest
    first, whatever it has of the thing itself or of a twin of that."""

    def others(self, things: Tensor, hands: Tensor) -> Tensor:
        """Numbers int64 [B, hands] of the drawings of ``things`` by all but ``hands``, int64 [B] both."""
        return self.rows[things].scatter(1, hands.unsqueeze(1), -1)

    def shown(self, things: Tensor, hands: Tensor) -> Tensor:
        """Numbers int64 [B, SHOWN] of what is shown of ``things`` to foretell them by ``hands``, int64 [B] both."""
        return torch.cat([self.others(things, hands), self.examples[things, hands, :EXAMPLES]], dim=1)


def drawn_table(records: Sequence[IconRecord], drawn: DrawnThings, kin: Tensor) -> DrawnTable:
    """The table of train ``records``, whose things are those of ``drawn``; ``kin``:
    :func:`pigeon_cli.training.memory.kinship`."""
    numbers = {thing: number for number, thing in enumerate(drawn.things)}
    rows = torch.full((len(numbers), len(HANDS)), -1)
    for row, record in enumerate(records):
        rows[numbers[record.meaning], HANDS.index(record.set)] = row
    twins = torch.tensor([record.twins for record in records])
    examples = torch.full((*rows.shape, LISTED), -1)
    for hand in range(len(HANDS)):
        own, group = rows[:, hand], twins[rows[:, hand].clamp_min(0)]
        same = (group.unsqueeze(1) == group) & (own >= 0) & (own >= 0).unsqueeze(1)
        likeness = drawn.foretell(hand, kin).masked_fill((own < 0) | same, FAR).fill_diagonal_(FAR)
        best, others = likeness.topk(min(LISTED, len(numbers)), dim=1)
        examples[:, hand, : best.shape[1]] = own[others].masked_fill(best <= FAR, -1)
    return DrawnTable(rows, examples)


class ForetellingNetwork(nn.Module):
    """A mixture of the drawings that are shown, place by place, and what differs from it.

    All of it in patches of latents, as :func:`patched` makes them.
    """

    def __init__(self, width: int) -> None:
        """``width``: of one patch."""
        super().__init__()
        self.reads = nn.Conv2d(SHOWN * (width + 1), WIDTH, 3, padding=1)
        self.hand = nn.Linear(len(HANDS), WIDTH)
        self.blocks = nn.ModuleList(_Block(number % ATTENDS == ATTENDS - 1) for number in range(BLOCKS))
        self.norm = nn.GroupNorm(GROUPS, WIDTH)
        self.says = nn.Conv2d(WIDTH, width + SIDE**2 * SHOWN, 3, padding=1)
        # At first the mean of all that is shown.
        for parameter in self.says.parameters():
            nn.init.zeros_(parameter)

    def forward(self, shown: Tensor, there: Tensor, hands: Tensor) -> Tensor:
        """Patches [B, SHOWN, width, h, w] of drawings, those by others in the order of the hands, and which of them
        are ``there``, bool [B, SHOWN]; numbers int64 [B] of the hands that are asked for; to float32 patches
        [B, width, h, w].
        """
        told = functional.one_hot(hands, len(HANDS)).to(shown)
        flags = there[:, :, None, None, None].to(shown).expand(-1, -1, 1, *shown.shape[-2:])
        values = self.reads(torch.cat([shown, flags], dim=2).flatten(1, 2)) + self.hand(told)[:, :, None, None]
        for block in self.blocks:
            values = block(values, told)
        said = self.says(functional.silu(self.norm(values))).float()
        differs, shares = said[:, : shown.shape[2]], said[:, shown.shape[2] :]
        shares = shares.unflatten(1, (SHOWN, SIDE**2)).masked_fill(~there[:, :, None, None, None], FAR).softmax(1)
        # One share for all channels of a place of the latents.
        mixed = (shown.float().unflatten(2, (-1, SIDE**2)) * shares.unsqueeze(2)).sum(1)
        return mixed.flatten(1, 2) + differs


class _Block(nn.Module):
    """Two convolutions; the hand scales and shifts what is between them. Attention behind them, if it ``attends``."""

    def __init__(self, attends: bool) -> None:
        super().__init__()
        self.attention = _Attention() if attends else None
        self.norm0, self.norm1 = nn.GroupNorm(GROUPS, WIDTH), nn.GroupNorm(GROUPS, WIDTH)
        self.conv0, self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.hand = nn.Linear(len(HANDS), 2 * WIDTH)
        self.dropout = nn.Dropout2d(DROPOUT)
        for last in (self.conv1, self.hand):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, values: Tensor, told: Tensor) -> Tensor:
        """Same shape as ``values`` [B, WIDTH, h, w]; ``told`` [B, hands]."""
        scale, shift = self.hand(told)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm1(self.conv0(functional.silu(self.norm0(values)))) * (1 + scale) + shift
        output: Tensor = values + self.conv1(self.dropout(functional.silu(inner)))
        return output if self.attention is None else output + self.attention(output)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, WIDTH)
        self.reads, self.says = nn.Conv2d(WIDTH, 3 * WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 1)
        for parameter in self.says.parameters():
            nn.init.zeros_(parameter)

    def forward(self, values: Tensor) -> Tensor:
        """[B, WIDTH, h, w] to the same shape."""
        heads = self.reads(self.norm(values)).unflatten(1, (3, -1, min(HEAD, WIDTH))).flatten(4).transpose(3, 4)
        seen = functional.scaled_dot_product_attention(*heads.unbind(1))
        output: Tensor = self.says(seen.transpose(2, 3).reshape(values.shape))
        return output


@dataclass(frozen=True)
class Foreteller:
    """A trained network, and what it is shown."""

    network: ForetellingNetwork
    table: DrawnTable

    @torch.no_grad()
    def __call__(self, latents: Tensor, places: Tensor) -> Tensor:
        """Scaled latents [N, c, h, w] of the drawings at ``places``, int64 [N, 2] of things and hands, from those of
        the train drawings, [records, c, h, w]."""
        patches = patched(latents)
        parts = []
        for things, hands in (part.T for part in places.split(AT_ONCE)):
            shown, there = look_up(patches, self.table.shown(things, hands))
            parts.append(functional.pixel_shuffle(self.network(shown, there, hands.to(shown.device)), SIDE))
        return torch.cat(parts) if parts else latents[:0]


def patch_width(config: DiffusionConfig) -> int:
    """Of one patch of the latents that a model of ``config`` draws."""
    return int(config.unet["out_channels"]) * SIDE**2


def patched(latents: Tensor) -> Tensor:
    """Latents [N, c, h, w] as the network reads them, [N, c SIDE^2, h / SIDE, w / SIDE]."""
    return functional.pixel_unshuffle(latents, SIDE)


def look_up(patches: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Of ``patches`` [records, width, h, w] those of ``numbers``, int64 [B, N], zero where one is -1; and which are
    there, bool [B, N]."""
    numbers = numbers.to(patches.device)
    there = numbers >= 0
    return patches[numbers.clamp_min(0)] * there[:, :, None, None, None], there


def load_foretelling_network(
    checkpoint: Path, config: DiffusionConfig, device: torch.device
) -> ForetellingNetwork | None:
    """The network of the stage ``foretell`` as its run left it, averaged; ``None`` where there is no such run.

    Raises :class:`InputError` for a checkpoint that holds no such network.
    """
    if not checkpoint.is_file():
        return None
    network = ForetellingNetwork(patch_width(config)).to(device)
    average = MovingAverage(network).to(device)
    load_from_run(average, checkpoint, "average", "network of the stage foretell", "pigeon train foretell")
    network.load_state_dict(average.state_of(network))
    return network.requires_grad_(False).eval()
