"""The judge's constants, from train cells alone."""

from __future__ import annotations

import random
import zlib

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.training.data.dataset import IconDataset, IconRecord
from pigeon_cli.training.data.looks import PLAIN, Look, apply_look, draw_look
from tests.benchmarks.judge import JudgeConstants
from tests.benchmarks.judge_network import JudgeNetwork

NEARNESS_WEIGHT = 2.0
"""Chosen on valid cells: the style of rough copies (wear 2) of right answers is then found 86 times in 100."""
MEANING_CELLS = 200
WORN_CELLS = 40
STYLE_CELLS = 120
_RIDGE = 1e-3
_WEAR_WEIGHT = 2.0
_SEED = 0


def make_constants(dataset: IconDataset, network: JudgeNetwork) -> JudgeConstants:
    """Constants of every set from its first train cells by crc32: plain for meaning, half under looks for the axes.

    A meaning deviation holds what wear does as well, measured over all sets: values that roughness alone shakes then
    weigh little.
    """
    mean: dict[str, Tensor] = {}
    variance: dict[str, Tensor] = {}
    shaken: list[Tensor] = []
    clean: dict[str, Tensor] = {}
    worn: dict[str, Tensor] = {}
    for name, records in sorted(dataset.train_by_set.items()):
        chosen = sorted(records, key=lambda record: zlib.crc32(record.cell.encode()))
        generator = torch.Generator().manual_seed(stream_seed(_SEED, "wear", name))
        images = looked(dataset, [(record, PLAIN) for record in chosen[:MEANING_CELLS]])
        heads = network.features(images, early=False).meaning
        mean[name], variance[name] = heads.mean(dim=0), heads.var(dim=0)
        rough = network.features(wear(images[:WORN_CELLS], 1.0, generator), early=False).meaning
        shaken.append(rough - heads[:WORN_CELLS])
        rng = random.Random(stream_seed(_SEED, "judge", name))
        pairs = [(record, draw_look(rng) if i % 2 else PLAIN) for i, record in enumerate(chosen[:STYLE_CELLS])]
        images = looked(dataset, pairs)
        clean[name] = network.features(images, meaning=False).style
        worn[name] = network.features(wear(images, 1.0, generator), meaning=False).style
    wear_variance = torch.cat(shaken).var(dim=0)
    deviation = {name: (each + wear_variance).sqrt() for name, each in variance.items()}
    style_mean, axes = fisher_axes(clean, worn)
    return JudgeConstants(style_mean, axes, mean, deviation, NEARNESS_WEIGHT)


def fisher_axes(clean: dict[str, Tensor], worn: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean [D] and the axes [D, sets - 1] that tell sets apart best against all that varies within a set.

    ``clean`` and ``worn`` are [N, D] per set, the same images before and after wear. What wear changes counts as
    variation within the set, twice: roughness of the drawing must not look like a change of style.
    """
    both = {name: torch.cat([clean[name], worn[name]]).double() for name in clean}
    centre = torch.cat(list(both.values())).mean(dim=0)
    within = [rows - rows.mean(dim=0) for rows in both.values()]
    within += [_WEAR_WEIGHT * (clean[name] - worn[name]).double() for name in clean]
    values, vectors = torch.linalg.eigh(torch.cov(torch.cat(within).T))
    whitening = vectors / (values + _RIDGE * values.mean()).sqrt()
    means = torch.stack([(rows.mean(dim=0) - centre) @ whitening for rows in both.values()])
    _, _, directions = torch.linalg.svd(means - means.mean(dim=0), full_matrices=False)
    return centre.float(), (whitening @ directions[: len(both) - 1].T).float()


def looked(dataset: IconDataset, pairs: list[tuple[IconRecord, Look]]) -> Tensor:
    """Float [N, 3, H, W] over white, in 256 levels: what a PNG of each record under its look would hold."""
    rgba = torch.from_numpy(np.stack([dataset.images[record.id] for record, _ in pairs])).permute(0, 3, 1, 2)
    result = torch.empty(len(pairs), 3, *rgba.shape[2:])
    for look in {look for _, look in pairs}:
        rows = [row for row, (_, other) in enumerate(pairs) if other == look]
        result[rows] = apply_look(look, rgba[rows])
    return (result * 255).round() / 255


def wear(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Rough copies of [N, 3, H, W]: warped, blurred, off-colour and grainy, as small models draw; 1 mild, 2 strong."""
    count, _, height, width = images.shape
    grid = functional.affine_grid(torch.eye(2, 3).repeat(count, 1, 1), list(images.shape), align_corners=False)
    bumps = torch.randn(count, 2, 8, 8, generator=generator) * 0.03 * level
    shift = functional.interpolate(bumps, (height, width), mode="bicubic").permute(0, 2, 3, 1)
    # Inverted, so that what comes in from outside is white.
    warped = 1 - functional.grid_sample(1 - images, grid + shift, align_corners=False)
    side = int(height / (1 + 1.5 * level))
    coarse = functional.interpolate(warped, (side, side), mode="area")
    smooth = functional.interpolate(coarse, (height, width), mode="bicubic")
    cast = 1 + 0.05 * level * torch.randn(count, 3, 1, 1, generator=generator)
    return (smooth * cast + 0.03 * level * torch.randn(images.shape, generator=generator)).clamp(0, 1)
