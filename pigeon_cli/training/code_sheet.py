"""Sheets whose pictures are all drawn from codes: of preference pairs, and of requests that have no rendered icons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.report.sheet import make_sheet
from pigeon_cli.training.pairs import PreferencePair
from pigeon_cli.training.request_sheet import draw_codes
from pigeon_cli.training.sequences import CodedRequest
from pigeon_cli.weights.store import ModelFolder

ROWS = 8
SHOWN_HISTORY = 5


@dataclass
class CodeSheet:
    """Rows of history, then the columns ``named``, then what is drawn now."""

    folder: ModelFolder
    device: DeviceChoice
    coded: list[CodedRequest]
    named: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    """Header to codes, one per row."""

    def save(self, path: Path, codes: Sequence[Sequence[int]]) -> bool:
        """Write the sheet with ``codes`` as the drawn column; false where the image generator is not trained yet."""
        if not (self.folder.part("unet").is_file() and self.folder.part("vae").is_file()):
            return False
        drawn = draw_codes(self.folder, self.device, codes)
        rows = [[*row, image] for row, image in zip(self._fixed, drawn, strict=True)]
        headers = ["history", *[""] * (SHOWN_HISTORY - 1), *self.named, "drawn"]
        make_sheet(rows, headers=headers, captions=[request.words for request in self.coded]).save(path)
        return True

    @cached_property
    def _fixed(self) -> list[list[Image.Image | None]]:
        """All columns but the last, which are the same in every sheet."""
        wanted = [
            [*request.history[:SHOWN_HISTORY], *(column[row] for column in self.named.values())]
            for row, request in enumerate(self.coded)
        ]
        images = iter(draw_codes(self.folder, self.device, [codes for row in wanted for codes in row]))
        rows: list[list[Image.Image | None]] = []
        for row in wanted:
            liked = len(row) - len(self.named)
            history = [next(images) for _ in range(liked)]
            rows.append([*history, *[None] * (SHOWN_HISTORY - liked), *(next(images) for _ in self.named)])
        return rows


def pair_sheet(folder: ModelFolder, device: DeviceChoice, pairs: Sequence[PreferencePair]) -> CodeSheet:
    """The first ``ROWS`` of ``pairs``: reference, the chosen, the rejected."""
    shown = pairs[:ROWS]
    named = {
        "reference": [pair.reference for pair in shown],
        "chosen": [pair.chosen.codes for pair in shown],
        "rejected": [pair.rejected.codes for pair in shown],
    }
    return CodeSheet(folder, device, [pair.coded() for pair in shown], named)


def request_sheet(folder: ModelFolder, device: DeviceChoice, requests: Sequence[CodedRequest]) -> CodeSheet:
    """The first ``ROWS`` of ``requests`` with their references."""
    shown = list(requests[:ROWS])
    return CodeSheet(folder, device, shown, {"reference": [request.reference for request in shown]})
