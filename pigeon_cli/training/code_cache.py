"""Stage ``encode``: every picture that language training reads, as codes, ahead of time (RECIPE.md point 4)."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.visual_tokenizer import VisualTokenizer, pack
from pigeon_cli.training.batches import IconBatches, normalise
from pigeon_cli.training.data.dataset import IconRecord
from pigeon_cli.training.data.looks import PLAIN, Look, apply_look, draw_look
from pigeon_cli.training.data.sets import ICON_SETS

BATCH = 256


@dataclass(frozen=True)
class EncodedLook:
    """All encoded pictures of one set under one look: ``codes`` int16 [n, patches], -1 as padding on the right."""

    set: str
    look: Look
    records: tuple[int, ...]
    codes: NDArray[np.int16]


@torch.no_grad()
def encode_pictures(tokenizer: VisualTokenizer, images: Tensor) -> NDArray[np.int16]:
    """RGB [B,3,H,W] in 0..1 to packed codes int16 [B, patches], -1 as padding."""
    result = np.full((len(images), tokenizer.config.patches), -1, dtype=np.int16)
    encoded = tokenizer.encode(normalise(images))
    packed, _ = pack(encoded.codes, encoded.keep)
    result[:, : packed.shape[1]] = packed.cpu().numpy()
    return result


def encode_look(
    tokenizer: VisualTokenizer, batches: IconBatches, name: str, look: Look, records: list[IconRecord]
) -> EncodedLook:
    """Codes of ``records`` of the set ``name`` under ``look``."""
    parts = []
    for start in range(0, len(records), BATCH):
        images = apply_look(look, batches.rgba(records[start : start + BATCH]))
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            parts.append(encode_pictures(tokenizer, images))
    return EncodedLook(name, look, tuple(record.id for record in records), np.concatenate(parts))


def build_code_cache(
    tokenizer: VisualTokenizer,
    batches: IconBatches,
    out: Path,
    looks_per_set: int,
    cells_per_look: int,
    seed: int,
    say: Callable[[str], None],
) -> int:
    """Write ``looks.jsonl`` and ``codes.npy`` for train cells; returns the number of pictures.

    The first look of every set is the plain one and holds all its train cells: references are never transformed.
    """
    encoded = []
    for name, records in batches.dataset.train_by_set.items():
        rng = random.Random(stream_seed(seed, "encode", name))
        for number in range(looks_per_set + 1):
            look = draw_look(rng, monochrome=ICON_SETS[name].monochrome) if number else PLAIN
            count = min(cells_per_look, len(records)) if number else len(records)
            encoded.append(encode_look(tokenizer, batches, name, look, rng.sample(list(records), count)))
        say(f"encode: {name}, {looks_per_set + 1} looks")
    _write(out, encoded)
    return sum(len(one.records) for one in encoded)


def _write(out: Path, encoded: list[EncodedLook]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"set": one.set, "look": one.look.to_json(), "records": list(one.records)}) for one in encoded]
    temporary = out / "codes.part.npy"
    np.save(temporary, np.concatenate([one.codes for one in encoded]))
    os.replace(temporary, out / "codes.npy")
    (out / "looks.part").write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(out / "looks.part", out / "looks.jsonl")


def load_code_cache(folder: Path) -> list[EncodedLook]:
    """What :func:`build_code_cache` wrote; :class:`InputError` when it is not there or incomplete."""
    try:
        codes = np.load(folder / "codes.npy", allow_pickle=False)
        lines = [json.loads(line) for line in (folder / "looks.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"no usable code cache in {folder}: {error}", "run: pigeon train encode") from error
    result, start = [], 0
    for line in lines:
        records = tuple(line["records"])
        rows = codes[start : start + len(records)]
        result.append(EncodedLook(line["set"], Look.from_json(line["look"]), records, rows))
        start += len(records)
    if start != len(codes):
        raise InputError(f"the code cache in {folder} is damaged", "run: pigeon train encode")
    return result
