"""Groups of pictures of one set under one look, which are histories of one another, and what each is drawn from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.dataset import IconRecord, grouped
from pigeon_cli.training.data.looks import PLAIN, apply_look, draw_look, geometry_of
from pigeon_cli.training.data.sets import ICON_SETS
from pigeon_cli.training.sources import SourceChooser, SourceShares
from pigeon_cli.training.stored_drawings import StoredDrawings

GROUP = 8
PLAIN_LOOKS = 0.22
"""How often nothing is worn, so that a picture shows its set's finish alone."""
SET_POWER = 0.7
"""Of a set's size in its weight: small sets are seen more often than their share."""
UNMOVED = 0.55
"""How often a look that moves things leaves the sources where they are, as references of a user and recalled drawings
are."""
RECALLED = 0.65
"""How often sources are as the memory gives them back, as those of a user are where something is recalled."""


@dataclass(frozen=True)
class LookedGroup:
    """Float pictures [GROUP, 3, H, W] in 0..1, or of several groups one after another."""

    wanted: Tensor
    sources: Tensor
    """What they are drawn from: a wanted picture itself, or a drawing in plain colours."""
    plain: Tensor
    """The wanted pictures in plain colours where their look puts them; the pictures themselves where ``own``."""
    own: Tensor
    """Bool [GROUP]: drawn from itself."""


class LookedGroups:
    """Draws groups from records of one split; sources are found among the train cells only."""

    def __init__(
        self,
        batches: IconBatches,
        records: Sequence[IconRecord],
        shares: SourceShares,
        stored: StoredDrawings | None = None,
    ) -> None:
        """With ``stored`` most sources are as the memory gives them back."""
        self.batches, self.shares, self.stored = batches, shares, stored
        self.by_set = grouped(records, "set")
        self.sources = SourceChooser(batches.dataset, records)

    def draw(self, rng: random.Random, count: int) -> LookedGroup:
        """``count`` groups, one after another."""
        groups = [self._draw_one(rng) for _ in range(count)]
        columns = zip(*((one.wanted, one.sources, one.plain, one.own) for one in groups), strict=True)
        return LookedGroup(*(torch.cat(column) for column in columns))

    def choose(self, rng: random.Random) -> list[IconRecord]:
        """Records of one group: different ones, if the set has so many."""
        names = list(self.by_set)
        members = self.by_set[rng.choices(names, [len(self.by_set[name]) ** SET_POWER for name in names])[0]]
        return rng.sample(members, GROUP) if len(members) >= GROUP else rng.choices(members, k=GROUP)

    def _draw_one(self, rng: random.Random) -> LookedGroup:
        chosen = self.choose(rng)
        worn = draw_look(rng, monochrome=ICON_SETS[chosen[0].set].monochrome)
        look = PLAIN if rng.random() < PLAIN_LOOKS else worn
        # What is wanted must not hang on what it is drawn from.
        apart = random.Random(rng.getrandbits(64))
        sources, own = zip(*(self.sources.choose(apart, record, self.shares) for record in chosen), strict=True)
        shape = geometry_of(look)
        unmoved = shape != PLAIN and rng.random() < UNMOVED
        pictures = self.batches.rgba(chosen)
        shows = self.batches if self.stored is None or apart.random() >= RECALLED else self.stored
        drawings = shows.rgba(list(sources))
        wanted = apply_look(look, pictures)
        itself = torch.tensor(own, device=wanted.device)
        shown = apply_look(PLAIN if unmoved else shape, drawings)
        rows = itself[:, None, None, None]
        return LookedGroup(
            wanted, torch.where(rows, wanted, shown), torch.where(rows, wanted, apply_look(shape, pictures)), itself
        )
