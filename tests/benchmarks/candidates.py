"""What one drawing is compared with: the same meaning in all sets, nine looks, fifty meanings (DESIGN.md section 3)."""

from __future__ import annotations

import hashlib
import os
import random
import zlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.training.data.dataset import IconDataset, IconRecord
from pigeon_cli.training.data.looks import KINDS, Look, draw_look
from pigeon_cli.training.data.requests import TrainingRequest
from tests.benchmarks.judge import CandidateFeatures
from tests.benchmarks.judge_constants import looked
from tests.benchmarks.judge_network import Features, JudgeNetwork

MEANING_CANDIDATES = 50
LOOK_CANDIDATES = 9
_SEED = 2026
_VISIBLE = 0.04
"""Root mean square difference over the image from which two looks of a cell count as different."""
_TRIES = 200


def same_meaning(dataset: IconDataset, target: IconRecord) -> list[IconRecord]:
    """The right answer first, then its meaning in every other set that has it and does not show the same drawing."""
    return [target, *(each for each in dataset.by_meaning[target.meaning] if each.twins != target.twins)]


def meaning_rivals(dataset: IconDataset, target: IconRecord) -> list[IconRecord]:
    """The right answer first, then 49 other drawings of its set in the order of crc32("meaning/other meaning")."""
    others = [each for each in dataset.by_set[target.set] if each.twins != target.twins]
    others.sort(key=lambda each: (zlib.crc32(f"{target.meaning}/{each.meaning}".encode()), each.meaning))
    return [target, *others[: MEANING_CANDIDATES - 1]]


def draw_other_looks(dataset: IconDataset, target: IconRecord, look: Look) -> list[Look]:
    """Eight looks of any of the twelve kinds that visibly differ on this cell from ``look`` and from each other."""
    rng = random.Random(stream_seed(_SEED, "other looks", target.cell, str(look.to_json())))
    chosen = [look]
    images = looked(dataset, [(target, look)])
    for _ in range(_TRIES):
        if len(chosen) == LOOK_CANDIDATES:
            break
        other = draw_look(rng, KINDS)
        image = looked(dataset, [(target, other)])
        if float((images - image).square().mean(dim=(1, 2, 3)).sqrt().min()) >= _VISIBLE:
            chosen.append(other)
            images = torch.cat([images, image])
    return chosen[1:]


def candidate_images(dataset: IconDataset, request: TrainingRequest) -> tuple[list[int], Tensor]:
    """Counts of style candidates, other looks, other meanings; their images float [N, 3, H, W], right answer first."""
    target, look = dataset.records[request.target], request.look
    answers, rivals = same_meaning(dataset, target), meaning_rivals(dataset, target)[1:]
    others = draw_other_looks(dataset, target, look)
    pairs = [(each, look) for each in answers] + [(target, each) for each in others]
    pairs += [(each, look) for each in rivals]
    return [len(answers), len(others), len(rivals)], looked(dataset, pairs)


def candidate_features(
    dataset: IconDataset, request: TrainingRequest, network: JudgeNetwork, cache: Path
) -> CandidateFeatures:
    """Features of all candidates, kept in ``cache`` under the hash of their pixels."""
    counts, images = candidate_images(dataset, request)
    key = hashlib.sha256(repr(counts).encode() + (images * 255).byte().numpy().tobytes()).hexdigest()[:24]
    path = cache / f"{key}.safetensors"
    if not path.exists():
        _save(path, counts, images, network)
    with safe_open(path, "pt") as file:
        style, nearness, meaning = (file.get_tensor(name) for name in ("style", "nearness", "meaning"))
    early = Features(style, nearness, style[:, :0])
    answers = counts[0]
    return CandidateFeatures(
        set_name=request.set,
        style=early[:answers],
        look=Features.cat([early[:1], early[answers:]]),
        meaning=Features(meaning[:, :0], meaning[:, :0], meaning),
    )


def _save(path: Path, counts: list[int], images: Tensor, network: JudgeNetwork) -> None:
    early_count = counts[0] + counts[1]
    early = network.features(images[:early_count], meaning=False)
    heads = network.features(torch.cat([images[:1], images[early_count:]]), early=False)
    tensors = {"style": early.style, "nearness": early.nearness.half(), "meaning": heads.meaning.half()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".part{os.getpid()}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    os.replace(partial, path)
