"""What the judge finds on real icons of the valid split: the figures beside its constants."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

import torch

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.training.data.dataset import IconDataset, IconRecord
from pigeon_cli.training.data.looks import PLAIN, draw_look
from tests.benchmarks.candidates import draw_other_looks, meaning_rivals, same_meaning
from tests.benchmarks.judge import Judge, first_wins
from tests.benchmarks.judge_constants import looked, wear
from tests.benchmarks.judge_network import Features, JudgeNetwork

POOL = 300
CELLS = 300
_SEED = 1


def check_on_real_icons(dataset: IconDataset, network: JudgeNetwork, judge: Judge) -> dict[str, float]:
    """Percent found at first try: the same meaning in another family's style among 300; and, under users' looks,

    style, look and meaning of rough copies (wear 1 and 2) and the style of another train icon of the same set.
    """
    rng = random.Random(stream_seed(_SEED, "judge check"))
    cells = [record for record in dataset.by_split["valid"] if len(dataset.by_meaning[record.meaning]) > 1]
    chosen = rng.sample(cells, min(CELLS, len(cells)))
    figures = {"same meaning in another style among 300": _across_styles(dataset, network, judge, chosen, rng)}
    hits: dict[str, list[float]] = {}
    for record in chosen:
        for name, hit in _under_look(dataset, network, judge, record, rng).items():
            hits.setdefault(name, []).append(float(hit))
    figures |= {name: _percent(values) for name, values in hits.items()}
    return figures


def _across_styles(
    dataset: IconDataset, network: JudgeNetwork, judge: Judge, chosen: Sequence[IconRecord], rng: random.Random
) -> float:
    pools: dict[str, tuple[list[IconRecord], Features]] = {}
    for name, records in sorted(dataset.by_set.items()):
        pool = sorted(records, key=lambda record: zlib.crc32(record.cell.encode()))[:POOL]
        pools[name] = (pool, network.features(looked(dataset, [(record, PLAIN) for record in pool]), early=False))
    hits = []
    for record in chosen:
        others = [each for each in dataset.by_meaning[record.meaning] if each.family != record.family]
        if not others:
            continue
        answer = rng.choice(others)
        pair = network.features(looked(dataset, [(answer, PLAIN), (record, PLAIN)]), early=False)
        pool, features = pools[answer.set]
        rivals = [row for row, each in enumerate(pool) if each.meaning != record.meaning][: POOL - 1]
        meaning = torch.cat([pair.meaning[:1], features.meaning[rivals]])
        rows = Features(meaning[:, :0], meaning[:, :0], meaning)
        hits.append(float(first_wins(judge.meaning_similarity(pair[1:2], rows, answer.set, record.set))))
    return _percent(hits)


def _under_look(
    dataset: IconDataset, network: JudgeNetwork, judge: Judge, record: IconRecord, rng: random.Random
) -> dict[str, float | bool]:
    look = draw_look(rng)
    answers = same_meaning(dataset, record)
    others = draw_other_looks(dataset, record, look)
    liked = rng.choice([each for each in dataset.train_by_set[record.set] if each.meaning != record.meaning])
    rivals = meaning_rivals(dataset, record)
    images = looked(dataset, [(each, look) for each in [*answers, liked]] + [(record, each) for each in others])
    generator = torch.Generator().manual_seed(stream_seed(_SEED, "wear", record.cell))
    rough = torch.cat([wear(images[:1], level, generator) for level in (1.0, 2.0)])
    early = network.features(torch.cat([images, rough]), meaning=False)
    heads = network.features(torch.cat([looked(dataset, [(each, look) for each in rivals]), rough]), early=False)
    count = len(answers)
    nine = Features.cat([early[:1], early[count + 1 : count + 1 + len(others)]])
    result: dict[str, float | bool] = {
        "style: chance": 1 / count,
        "style: another icon of the set": first_wins(judge.style_similarity(early[count : count + 1], early[:count])),
    }
    for level, row in ((1, -2), (2, -1)):
        at, head = slice(len(early) + row, len(early) + row + 1), slice(len(heads) + row, len(heads) + row + 1)
        result[f"style: rough copy, wear {level}"] = first_wins(judge.style_similarity(early[at], early[:count]))
        result[f"look: rough copy, wear {level}"] = first_wins(judge.look_similarity(early[at], nine))
        result[f"meaning: rough copy, wear {level}"] = first_wins(
            judge.meaning_similarity(heads[head], heads[: len(rivals)], record.set)
        )
    return result


def _percent(values: Sequence[float]) -> float:
    return round(100 * sum(values) / max(1, len(values)), 1)
