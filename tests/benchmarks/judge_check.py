"""What the judge finds on real icons: the same meaning in another style among 300, the figure beside its constants.

The style figure is the rows ``rough-1`` and ``rough-2`` of quality.py: rough copies of the right answers.
"""

from __future__ import annotations

import random
import zlib

import torch

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.training.data.dataset import IconDataset, IconRecord
from pigeon_cli.training.data.looks import PLAIN
from tests.benchmarks.judge import Judge, first_wins
from tests.benchmarks.judge_constants import looked
from tests.benchmarks.judge_network import Features, JudgeNetwork

POOL = 300
QUERIES = 300
_SEED = 1


def found_among_300(dataset: IconDataset, network: JudgeNetwork, judge: Judge) -> tuple[int, int]:
    """Hits and queries: plain valid icons, each against 300 plain cells of a set of another family."""
    rng = random.Random(stream_seed(_SEED, "judge check"))
    cells = [cell for cell in dataset.by_split["valid"] if _elsewhere(dataset, cell.meaning, cell.family)]
    chosen = rng.sample(cells, min(QUERIES, len(cells)))
    hits = 0
    answers = [rng.choice(_elsewhere(dataset, cell.meaning, cell.family)) for cell in chosen]
    for name, records in sorted(dataset.by_set.items()):
        queries = [(cell, answer) for cell, answer in zip(chosen, answers, strict=True) if answer.set == name]
        pool = sorted(records, key=lambda record: zlib.crc32(record.cell.encode()))[:POOL]
        heads = network.features(looked(dataset, [(record, PLAIN) for record in pool]), early=False).meaning
        for cell, answer in queries:
            pair = network.features(looked(dataset, [(answer, PLAIN), (cell, PLAIN)]), early=False)
            rivals = [row for row, each in enumerate(pool) if each.meaning != cell.meaning][: POOL - 1]
            meaning = torch.cat([pair.meaning[:1], heads[rivals]])
            candidates = Features(meaning[:, :0], meaning[:, :0], meaning)
            hits += first_wins(judge.meaning_similarity(pair[1:2], candidates, name, drawn_set=cell.set))
    return hits, len(chosen)


def _elsewhere(dataset: IconDataset, meaning: str, family: str) -> list[IconRecord]:
    return [record for record in dataset.by_meaning[meaning] if record.family != family]
