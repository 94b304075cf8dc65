"""Sheets of preference pairs: what was liked and asked for, the chosen, the rejected, and what is drawn now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.report.sheet import make_sheet
from pigeon_cli.training.pairs import PreferencePair
from pigeon_cli.training.request_sheet import draw_codes
from pigeon_cli.weights.store import ModelFolder

ROWS = 8
SHOWN_HISTORY = 5


@dataclass
class PairSheet:
    """The first ``ROWS`` of some pairs. All pictures are drawn from codes: a pairs file holds nothing else."""

    folder: ModelFolder
    device: DeviceChoice
    pairs: Sequence[PreferencePair]

    def __post_init__(self) -> None:
        self.pairs = self.pairs[:ROWS]

    def save(self, path: Path, codes: Sequence[Sequence[int]]) -> None:
        """Write the sheet with ``codes`` as the last column; nothing where the model has no image generator."""
        if not (self.folder.part("unet").is_file() and self.folder.part("vae").is_file()):
            return
        drawn = draw_codes(self.folder, self.device, codes)
        rows = [[*row, image] for row, image in zip(self._fixed, drawn, strict=True)]
        headers = ["history", *[""] * (SHOWN_HISTORY - 1), "reference", "chosen", "rejected", "drawn"]
        make_sheet(rows, headers=headers, captions=[pair.words for pair in self.pairs]).save(path)

    @cached_property
    def _fixed(self) -> list[list[Image.Image | None]]:
        """All columns but the last, which are the same in every sheet."""
        wanted = [
            [*pair.history[:SHOWN_HISTORY], pair.reference, pair.chosen.codes, pair.rejected.codes]
            for pair in self.pairs
        ]
        images = iter(draw_codes(self.folder, self.device, [codes for row in wanted for codes in row]))
        rows: list[list[Image.Image | None]] = []
        for row in wanted:
            pictures = [next(images) for _ in row]
            blank = [None] * (SHOWN_HISTORY + 3 - len(pictures))
            rows.append([*pictures[:-3], *blank, *pictures[-3:]])
        return rows
