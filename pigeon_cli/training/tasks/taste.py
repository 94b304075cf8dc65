"""Stage ``taste``: what pictures under one look of one set share, read off any few of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.errors import UsageError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.taste import TasteReader, picture_statistics
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.batches import IconBatches, normalise
from pigeon_cli.training.data.dataset import IconRecord, grouped
from pigeon_cli.training.data.look_numbers import look_numbers
from pigeon_cli.training.data.looks import PLAIN, TRAIN_KINDS, Look, apply_look, draw_look
from pigeon_cli.training.data.sets import ICON_SETS
from pigeon_cli.training.figures import save_tensor_sheet
from pigeon_cli.training.loop import TrainingTask
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.weights.store import ModelFolder

SHOWN = 5
"""Pictures of every history; a step reads one to all of them."""
POOL_HISTORIES = 7000
VALID_HISTORIES = 400
KIND_WEIGHT, SET_WEIGHT = 2.0, 0.4
SMALLEST_DEVIATION = 1e-2
SHEET_ROWS = 12
SET_NAMES = tuple(ICON_SETS)


@dataclass(frozen=True)
class _Histories:
    """n histories of SHOWN pictures each."""

    pictures: Sequence[tuple[Look, list[IconRecord]]]
    statistics: Tensor
    """[n, SHOWN, N]."""
    kinds: Tensor
    """Float [n, kinds], 1 where a kind of look is worn."""
    numbers: Tensor
    """[n, numbers] of the look."""
    sets: Tensor
    """int64 [n]."""


class TasteHead(nn.Sequential):
    """A taste to logits of kinds of looks, their numbers, and logits of sets; thrown away after training."""

    def __init__(self, width: int, hidden: int = 160) -> None:
        self.parts = (len(TRAIN_KINDS), len(look_numbers(PLAIN)), len(SET_NAMES))
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, sum(self.parts)))

    def told(self, taste: Tensor) -> Sequence[Tensor]:
        """The three parts for tastes [B, width]."""
        parts: Sequence[Tensor] = self(taste).split(self.parts, dim=-1)
        return parts


class TasteTask(TrainingTask):
    """The kinds and numbers of a look, and the set, from the mean of some pictures' vectors."""

    name = "taste"

    def __init__(
        self, folder: ModelFolder, batches: IconBatches, tokenizer: VisualTokenizer, batch: int, steps: int
    ) -> None:
        if folder.spec.taste is None:
            raise UsageError(f"{folder.path} has no taste reader", "describe one in its config.json")
        self.folder, self.batches, self.tokenizer, self.batch = folder, batches, tokenizer, batch
        self.reader = TasteReader(folder.spec.taste).to(batches.device)
        self.head = TasteHead(folder.spec.taste.width).to(batches.device)
        self.modules = {"taste": self.reader, "head": self.head}
        by_set = batches.dataset.train_by_set
        self.pool = self._read(by_set, min(POOL_HISTORIES, batch * steps), "taste")
        self.valid = self._read(grouped(batches.valid, "set"), min(VALID_HISTORIES, batch * steps), "taste, valid")
        everything = self.pool.statistics.flatten(0, 1)
        self.reader.mean.copy_(everything.mean(0))
        self.reader.deviation.copy_(everything.std(0) + SMALLEST_DEVIATION)
        self.spread = self.pool.numbers.std(0) + SMALLEST_DEVIATION

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        rows = rng.choices(range(len(self.pool.sets)), k=self.batch)
        seen = rng.sample(range(SHOWN), rng.randint(1, SHOWN))
        kinds, numbers, sets = self.head.told(self.reader(self.pool.statistics[rows][:, seen]).mean(1))
        kind = functional.binary_cross_entropy_with_logits(kinds, self.pool.kinds[rows])
        number = ((numbers - self.pool.numbers[rows]) / self.spread).square().mean()
        hand = functional.cross_entropy(sets, self.pool.sets[rows])
        return {"loss": KIND_WEIGHT * kind + number + SET_WEIGHT * hand, "kind": kind, "number": number, "set": hand}

    def _read(self, by_set: Mapping[str, Sequence[IconRecord]], count: int, name: str) -> _Histories:
        """``count`` histories of pictures of a set under a look; the same at every call."""
        rng = random.Random(stream_seed(0, name))
        names = list(by_set)
        sets = rng.choices(names, k=count)
        looks = [draw_look(rng, monochrome=ICON_SETS[name].monochrome) for name in sets]
        pictures = [(look, rng.choices(by_set[name], k=SHOWN)) for name, look in zip(sets, looks, strict=True)]
        told = (
            [[float(kind in look.kinds) for kind in TRAIN_KINDS] for look in looks],
            [look_numbers(look) for look in looks],
            [SET_NAMES.index(name) for name in sets],
        )
        statistics = torch.stack([self._statistics(look, records) for look, records in pictures])
        return _Histories(pictures, statistics, *(torch.tensor(part, device=self.batches.device) for part in told))

    @torch.no_grad()
    def _statistics(self, look: Look, records: list[IconRecord]) -> Tensor:
        images = apply_look(look, self.batches.rgba(records))
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            features = self.tokenizer.patch_features(normalise(images))
        return picture_statistics(images, features)

    @torch.no_grad()
    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        """Shares of sets and of worn kinds that are told from one picture and from all, and what of the numbers is."""
        figures: dict[str, float] = {}
        for count in (1, SHOWN):
            kinds, numbers, sets = self.head.told(self.reader(self.valid.statistics[:, :count]).mean(1))
            worn = self.valid.kinds > 0
            wrong, spread = (
                (self.valid.numbers - each).div(self.spread).square().sum()
                for each in (numbers, self.valid.numbers.mean(0))
            )
            figures |= {
                f"set_told_of_{count}": float((sets.argmax(-1) == self.valid.sets).float().mean()),
                f"kind_told_of_{count}": float((kinds[worn] > 0).float().mean()),
                f"number_told_of_{count}": 1 - float(wrong / spread),
            }
        self._draw_sheet(folder / f"sheet-{step + 1:06d}.png")
        return figures

    def _draw_sheet(self, path: Path) -> None:
        """Two pictures of some valid histories, and of those whose other pictures are nearest to them in taste."""
        vectors = self.reader(self.valid.statistics)
        some, others = (functional.normalize(part.mean(1), dim=-1) for part in (vectors[:, :2], vectors[:, 2:]))
        nearest = (some[:SHEET_ROWS] @ others.T).topk(min(3, len(others)), dim=1).indices.T.tolist()
        rows = [list(range(len(nearest[0]))), *nearest]
        columns = [self._first_pictures(part, place) for part in rows for place in range(2)]
        save_tensor_sheet(path, columns, ["history", "", "nearest", *[""] * (len(columns) - 3)])

    def _first_pictures(self, rows: Sequence[int], place: int) -> Tensor:
        """Float [rows, 3, S, S]: the picture at ``place`` of each of those valid histories."""
        chosen = [self.valid.pictures[row] for row in rows]
        return torch.cat([apply_look(look, self.batches.rgba([records[place]])) for look, records in chosen])

    def export(self) -> None:
        save_shipped(self.folder, "taste", self.reader.state_dict())
