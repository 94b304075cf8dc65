"""Stage ``finish``: what another hand makes of the same lines, for the drawings that the memory is to hold."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.core.errors import InputError
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.alike import outlines_of
from pigeon_cli.training.data.dataset import IconRecord
from pigeon_cli.training.data.looks import PLAIN, apply_look
from pigeon_cli.training.data.sets import HANDS
from pigeon_cli.training.figures import gradient_loss, psnr, save_tensor_sheet
from pigeon_cli.training.finishes import Finisher, FinishNetwork, sibling_pairs
from pigeon_cli.training.loop import LoopSettings, MovingAverage, TrainingTask
from pigeon_cli.training.memory import kinship

MATRIX_DECAY, AVERAGE_DECAY = 0.01, 0.995
MOST_MOVED = 6
"""Pixels by which a pair is moved, so that few pairs teach more."""
RECOLOURED_SHARE = 0.4
"""Of pairs whose colour channels are exchanged, both alike."""
VALID_PAIRS, SHEET_PAIRS = 96, 24

Pair = tuple[IconRecord, IconRecord]


class FinishTask(TrainingTask):
    """L1 and edges between what is made of a train drawing and the sibling's own; hands in equal shares.

    The network goes on in the run's checkpoint only: the stage ``memory`` reads it from there.
    """

    name = "finish"

    def __init__(self, batches: IconBatches, batch: int) -> None:
        self.batches, self.batch, self.device = batches, batch, batches.device
        kin = kinship(batches.train, outlines_of(batches.dataset, batches.train))
        self.pairs: dict[str, list[Pair]] = {}
        for pair in sibling_pairs(batches.train, batches.train, kin):
            self.pairs.setdefault(pair[1].set, []).append(pair)
        if not self.pairs:
            raise InputError("no two sets of the dataset draw the same lines", "leave the stage finish out")
        found = sibling_pairs(batches.train, batches.valid, kin)
        self.valid = random.Random(1).sample(found, min(VALID_PAIRS, len(found)))
        self.network = FinishNetwork().to(self.device)
        self.average = MovingAverage(self.network, AVERAGE_DECAY).to(self.device)
        self.modules = {"network": self.network, "average": self.average}

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        names = rng.choices(list(self.pairs), k=self.batch)
        pairs = [rng.choice(self.pairs[name]) for name in names]
        sources, wanted = self._changed(rng, *self._pictures(pairs))
        made = self.network(sources, self._hands(pairs)).float()
        absolute, edges = (made - wanted).abs().mean(), gradient_loss(made, wanted)
        return {"loss": absolute + edges, "l1": absolute, "edges": edges}

    def _pictures(self, pairs: list[Pair]) -> tuple[Tensor, Tensor]:
        """Plain sources and wanted pictures, float [B, 3, S, S] in 0..1."""
        sources, wanted = (apply_look(PLAIN, self.batches.rgba(list(records))) for records in zip(*pairs, strict=True))
        return sources, wanted

    def _hands(self, pairs: list[Pair]) -> Tensor:
        return torch.tensor([HANDS.index(record.set) for _, record in pairs], device=self.device)

    def _changed(self, rng: random.Random, sources: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Both turned over, moved and recoloured, each pair alike."""
        both = torch.cat([sources, wanted], dim=1)
        if rng.random() < 0.5:
            both = both.flip(3)
        left, top = rng.randint(-MOST_MOVED, MOST_MOVED), rng.randint(-MOST_MOVED, MOST_MOVED)
        both = functional.pad(both, (left, -left, top, -top), value=1.0)
        rows = []
        for pair in both:
            order = rng.sample(range(3), 3) if rng.random() < RECOLOURED_SHARE else list(range(3))
            rows.append(pair[[*order, *(channel + 3 for channel in order)]])
        changed = torch.stack(rows)
        return changed[:, :3], changed[:, 3:]

    def after_step(self, step: int) -> None:
        self.average.update(self.network, step)

    def parameter_groups(self, settings: LoopSettings) -> list[dict[str, Any]]:
        return super().parameter_groups(replace(settings, weight_decay=MATRIX_DECAY))

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        """PSNR of finishes of valid drawings, and of their sources as they are."""
        if not self.valid:
            return {}
        sources, wanted = self._pictures(self.valid)
        with self.average.in_place_of(self.network):
            finish = Finisher(self.network)
            made = torch.cat(
                [
                    finish(row.unsqueeze(0), hand)
                    for row, hand in zip(sources, self._hands(self.valid).tolist(), strict=True)
                ]
            ).float()
        columns = [part[:SHEET_PAIRS] for part in (sources, made, wanted)]
        save_tensor_sheet(folder / f"sheet-{step + 1:06d}.png", columns, ["sibling", "finish", "wanted"])
        return {"psnr": psnr(made, wanted), "psnr_sibling": psnr(sources, wanted)}

    def export(self) -> None:
        """Nothing: no weights of the model are trained here."""
