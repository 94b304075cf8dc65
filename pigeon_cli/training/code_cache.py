"""Stage ``encode``: every picture that language training reads, as codes, ahead of time (RECIPE.md point 4)."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.visual_tokenizer import VisualTokenizer, pack
from pigeon_cli.training.batches import IconBatches, normalise
from pigeon_cli.training.data.dataset import INDEX_FILE, IconRecord
from pigeon_cli.training.data.looks import PLAIN, Look, apply_look, draw_look, geometry_of
from pigeon_cli.training.data.sets import ICON_SETS
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.store import ModelFolder

BATCH = 256
ORIGIN: Final = "origin.json"
"""Written last: where it lies, the cache is whole."""


@dataclass(frozen=True)
class EncodedLook:
    """All encoded pictures of one set under one look: codes int16 [n, tokens], -1 as padding on the right."""

    set: str
    look: Look
    records: tuple[int, ...]
    codes: NDArray[np.int16]
    shapes: NDArray[np.int16]
    """The same drawings where the look puts them, in their plain colours: what places say, whatever the style."""


@torch.no_grad()
def encode_pictures(tokenizer: VisualTokenizer, images: Tensor) -> NDArray[np.int16]:
    """RGB [B,3,H,W] in 0..1 to packed codes int16 [B, tokens], -1 as padding."""
    result = np.full((len(images), tokenizer.config.tokens), -1, dtype=np.int16)
    encoded = tokenizer.encode(normalise(images))
    packed, _ = pack(encoded.codes, encoded.keep)
    result[:, : packed.shape[1]] = packed.cpu().numpy()
    return result


def encode_records(
    tokenizer: VisualTokenizer, batches: IconBatches, look: Look, records: Sequence[IconRecord]
) -> NDArray[np.int16]:
    """Codes int16 [n, tokens] of ``records`` under ``look``."""
    parts = []
    for start in range(0, len(records), BATCH):
        images = apply_look(look, batches.rgba(list(records[start : start + BATCH])))
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            parts.append(encode_pictures(tokenizer, images))
    return np.concatenate(parts)


def plain_codes(looks: Sequence[EncodedLook]) -> dict[int, NDArray[np.int16]]:
    """By id the codes of every plain picture."""
    return {
        number: codes
        for look in looks
        if look.look == PLAIN
        for number, codes in zip(look.records, look.codes, strict=True)
    }


class _Encoder:
    """Encodes looks of train cells; every plain drawing once."""

    def __init__(self, tokenizer: VisualTokenizer, batches: IconBatches) -> None:
        self.tokenizer, self.batches = tokenizer, batches
        train = batches.train
        self.plain = {
            record.id: row for record, row in zip(train, encode_records(tokenizer, batches, PLAIN, train), strict=True)
        }

    def look(self, name: str, look: Look, records: Sequence[IconRecord]) -> EncodedLook:
        """Codes of ``records`` of the set ``name`` under ``look``, and of their shapes."""
        codes, shapes = (
            np.stack([self.plain[record.id] for record in records])
            if worn == PLAIN
            else encode_records(self.tokenizer, self.batches, worn, records)
            for worn in (look, geometry_of(look))
        )
        return EncodedLook(name, look, tuple(record.id for record in records), codes, shapes)


@dataclass(frozen=True)
class CodeOrigin:
    """What codes are of: SHA-256 of the tokenizer's weights and of the dataset's index, whose rows they name."""

    tokenizer: str
    index: str

    @classmethod
    def of(cls, folder: ModelFolder, data: Path) -> CodeOrigin:
        """That of a model's tokenizer and a dataset's folder."""
        return cls(sha256_of(folder.part("tokenizer")), sha256_of(data / INDEX_FILE))


def build_code_cache(
    tokenizer: VisualTokenizer,
    batches: IconBatches,
    out: Path,
    origin: CodeOrigin,
    looks_per_set: int,
    cells_per_look: int,
    seed: int,
    say: Callable[[str], None],
) -> int:
    """Write ``looks.jsonl``, ``codes.npy`` and ``origin.json`` for train cells; returns the number of pictures.

    The first look of every set is the plain one and holds all its train cells: references are never transformed.
    """
    encoder, encoded = _Encoder(tokenizer, batches), []
    for name, records in batches.dataset.train_by_set.items():
        rng = random.Random(stream_seed(seed, "encode", name))
        for number in range(looks_per_set + 1):
            look = draw_look(rng, monochrome=ICON_SETS[name].monochrome) if number else PLAIN
            count = min(cells_per_look, len(records)) if number else len(records)
            encoded.append(encoder.look(name, look, rng.sample(list(records), count)))
        say(f"encode: {name}, {looks_per_set + 1} looks")
    _write(out, encoded, origin)
    return sum(len(one.records) for one in encoded)


def _write(out: Path, encoded: list[EncodedLook], origin: CodeOrigin) -> None:
    out.mkdir(parents=True, exist_ok=True)
    # While the files are of two runs, none of them counts.
    (out / ORIGIN).unlink(missing_ok=True)
    lines = [json.dumps({"set": one.set, "look": one.look.to_json(), "records": one.records}) for one in encoded]
    temporary = out / "codes.part.npy"
    rows = [np.stack([one.codes, one.shapes]) for one in encoded]
    np.save(temporary, np.concatenate(rows, axis=1))
    os.replace(temporary, out / "codes.npy")
    (out / "looks.part").write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(out / "looks.part", out / "looks.jsonl")
    (out / "origin.part").write_text(json.dumps(asdict(origin)) + "\n", encoding="utf-8")
    os.replace(out / "origin.part", out / ORIGIN)


def load_code_cache(folder: Path, origin: CodeOrigin) -> list[EncodedLook]:
    """What :func:`build_code_cache` wrote; :class:`InputError` when it is not whole, or of another origin."""
    try:
        found = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        codes = np.load(folder / "codes.npy", allow_pickle=False)
        lines = [json.loads(line) for line in (folder / "looks.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"no usable code cache in {folder}: {error}", "run: pigeon train encode") from error
    if found != asdict(origin):
        raise InputError(f"the codes in {folder} are of another tokenizer or dataset", "run: pigeon train encode")
    result, start = [], 0
    for line in lines:
        records = tuple(line["records"])
        rows, shapes = codes[:, start : start + len(records)]
        result.append(EncodedLook(line["set"], Look.from_json(line["look"]), records, rows, shapes))
        start += len(records)
    if start != codes.shape[1]:
        raise InputError(f"the code cache in {folder} is damaged", "run: pigeon train encode")
    return result
