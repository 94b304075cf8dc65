"""Stage ``memory``: plain drawings of every train meaning, one by each family of sets, and how to find them."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import MemoryConfig
from pigeon_cli.core.errors import UsageError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.memory import Memory, pack_codes
from pigeon_cli.models.taste import TasteReader
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.pipeline.recall import MEMORY_LIST, Remembered
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.code_cache import EncodedLook, plain_codes
from pigeon_cli.training.data.alike import AT_ONCE, outlines_of
from pigeon_cli.training.data.dataset import IconRecord, grouped
from pigeon_cli.training.data.looks import PLAIN, apply_look, draw_look
from pigeon_cli.training.data.sets import ICON_SETS
from pigeon_cli.training.frozen_reader import frozen_taste_reader, tastes_of
from pigeon_cli.training.sequences import most_typical
from pigeon_cli.weights.checkpoint import save_part
from pigeon_cli.weights.store import ModelFolder

CLEAREST: Final = (
    "twemoji", "fluent-emoji-flat", "noto", "emojione", "fluent-emoji", "noto-v1", "fxemoji", "emojione-monotone",
    "fluent-emoji-high-contrast",
)  # fmt: skip
"""Icon sets whose drawings stand for their family's, the plainest first: flat and in colours, which every finish can
take."""
HANDS: Final = tuple(ICON_SETS)
KEY_WIDTH: Final = 24
KEY_FLOOR: Final = 0.3
"""Of the largest singular value, added to all: directions in which outlines hardly differ count less."""
HISTORIES, SHOWN = 150, 5
"""Of each set, from which its tastes are told, and their pictures."""
FIT_STEPS, FIT_DECAY = 60, 1e-3
FINISHED = 60
"""Plain drawings of each set by which its finish is told."""


def build_memory(
    folder: ModelFolder, batches: IconBatches, tokenizer: VisualTokenizer, looks: list[EncodedLook]
) -> int:
    """Write ``memory.safetensors`` and ``memory.txt`` from the plain pictures of a code cache; returns how many
    drawings. Raises :class:`UsageError` where ``config.json`` expects another memory, or no taste reader.
    """
    reader = frozen_taste_reader(folder, batches.device)
    if folder.spec.taste is None or reader is None:
        raise UsageError(f"{folder.path} has no taste reader", "describe one in its config.json, then: train taste")
    plain = plain_codes(looks)
    seen = [record for record in batches.train if record.id in plain]
    things = sorted({record.meaning for record in seen})
    drawings = clearest(seen)
    packed = pack_codes(np.stack([plain[record.id] for record in drawings]))
    config = MemoryConfig(
        len(drawings), folder.spec.tokenizer.tokens, len(packed), len(things), len(seen), KEY_WIDTH, len(HANDS),
        folder.spec.taste.width, folder.spec.tokenizer.style_tokens,
    )  # fmt: skip
    if folder.spec.memory != config:
        raise UsageError(
            f"{folder.path / 'config.json'} describes another memory",
            f'set it to "memory": {json.dumps(asdict(config))}',
        )
    memory = Memory(config)
    memory.packed.copy_(torch.frombuffer(bytearray(packed), dtype=torch.uint8))
    _number(memory.things, (things.index(record.meaning) for record in drawings))
    _number(memory.hands, (HANDS.index(record.set) for record in drawings))
    _number(memory.key_things, (things.index(record.meaning) for record in seen))
    starts = range(0, len(seen), AT_ONCE)
    lines = torch.cat([outlines_of(batches.dataset, seen[start : start + AT_ONCE]) for start in starts])
    _learn_keys(memory, lines)
    memory.kinship.copy_(kinship(seen, lines))
    _learn_hands(memory, batches, tokenizer, reader)
    _learn_finishes(memory, batches, tokenizer, reader, plain)
    save_part(folder.part("memory"), memory.state_dict())
    _write_list(folder, things, grouped(seen, "meaning"))
    return len(drawings)


def clearest(records: Sequence[IconRecord]) -> list[IconRecord]:
    """Of every meaning the record that stands for each family, in the order of groups, so that like is by like."""
    chosen: dict[tuple[str, str], IconRecord] = {}
    for record in sorted(records, key=lambda record: CLEAREST.index(record.set)):
        chosen.setdefault((record.meaning, record.family), record)
    return sorted(chosen.values(), key=lambda record: (record.family, record.group, record.subgroup, record.label))


def kinship(records: Sequence[IconRecord], lines: Tensor) -> Tensor:
    """Mean agreement [hands, hands] of outlines [records, N] over the meanings that two sets share."""
    total, count = torch.zeros(2, len(HANDS), len(HANDS))
    rows: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        rows.setdefault(record.meaning, []).append(row)
    for members in rows.values():
        for one, other in itertools.permutations(members, 2):
            place = HANDS.index(records[one].set), HANDS.index(records[other].set)
            total[place] += float(lines[one] @ lines[other])
            count[place] += 1
    return (total / count.clamp_min(1)).fill_diagonal_(1.0)


def _number(buffer: Tensor, numbers: Iterable[int]) -> None:
    buffer.copy_(torch.tensor(list(numbers)))


def _learn_keys(memory: Memory, lines: Tensor) -> None:
    """Principal directions of outlines [keys, CELLS], and all of them in those."""
    memory.centre.copy_(lines.mean(0))
    _, values, directions = torch.linalg.svd(lines - memory.centre, full_matrices=False)
    width = min(memory.config.key_width, len(values))
    scales = values[:width] / values[0] + KEY_FLOOR
    with torch.no_grad():
        memory.projection.weight.zero_()
        memory.projection.weight[:width] = directions[:width] / scales.unsqueeze(1)
    memory.learn_keys(lines)


def _learn_hands(memory: Memory, batches: IconBatches, tokenizer: VisualTokenizer, reader: TasteReader) -> None:
    """Logistic regression of the set on the mean taste of one to all of a history's pictures."""
    rng = random.Random(stream_seed(0, "memory, hands"))
    tastes, hands = [], []
    for name, records in batches.dataset.train_by_set.items():
        for _ in range(HISTORIES):
            look = draw_look(rng, monochrome=ICON_SETS[name].monochrome)
            images = apply_look(look, batches.rgba(rng.choices(records, k=SHOWN)))
            vectors = tastes_of(images, tokenizer, reader)
            tastes += [vectors[:count].mean(0) for count in (1, SHOWN - 2, SHOWN)]
            hands += [HANDS.index(name)] * 3
    told, wanted = torch.stack(tastes), torch.tensor(hands)
    fit = memory.tells_hand
    nn.init.zeros_(fit.weight)
    nn.init.zeros_(fit.bias)
    optimizer = torch.optim.LBFGS(fit.parameters(), max_iter=FIT_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(fit(told), wanted) + FIT_DECAY * fit.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def _learn_finishes(
    memory: Memory,
    batches: IconBatches,
    tokenizer: VisualTokenizer,
    reader: TasteReader,
    plain: Mapping[int, NDArray[np.int16]],
) -> None:
    """The taste and the style tokens of every set's plain drawings, by some of them."""
    rng = random.Random(stream_seed(0, "memory, finishes"))
    codebook, style = tokenizer.quantizer.embedding.weight.detach().float().cpu().numpy(), memory.config.style_tokens
    for name, records in batches.dataset.train_by_set.items():
        some = rng.sample(records, min(FINISHED, len(records)))
        images = apply_look(PLAIN, batches.rgba(some))
        memory.tastes[HANDS.index(name)] = tastes_of(images, tokenizer, reader).mean(0)
        codes = [plain[record.id] for record in some if record.id in plain]
        if style and codes:
            typical = codes[most_typical(codes, codebook, style)][:style]
            memory.styles[HANDS.index(name)] = torch.from_numpy(typical)


def _write_list(folder: ModelFolder, things: Sequence[str], by_meaning: Mapping[str, Sequence[IconRecord]]) -> None:
    named = [min(by_meaning[thing], key=lambda record: CLEAREST.index(record.set)) for thing in things]
    lines = [Remembered(record.label, " ".join(record.tags)).line() for record in named]
    target = folder.path / MEMORY_LIST
    temporary = target.with_suffix(".part")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(temporary, target)
