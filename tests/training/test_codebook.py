"""The codebook starts from data, follows it, and replaces codes that nobody uses."""

from __future__ import annotations

import torch
from torch.nn import functional

from pigeon_cli.training.codebook import RESTART_EVERY, CodebookKeeper, k_means


def clusters(count: int, per: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = functional.normalize(torch.randn(count, 8, generator=generator), dim=-1)
    points = centres.repeat_interleave(per, 0) + 0.01 * torch.randn(count * per, 8, generator=generator)
    return centres, functional.normalize(points, dim=-1)


def test_k_means_finds_most_clusters() -> None:
    centres, points = clusters(16, 50)
    found = k_means(points, 32)
    assert found.norm(dim=-1).allclose(torch.ones(32), atol=1e-5)
    assert ((centres @ found.T).amax(1) > 0.99).float().mean() > 0.8


def test_unused_codes_come_back_from_current_vectors() -> None:
    _, points = clusters(4, 50)
    keeper = CodebookKeeper(8, 8)
    codebook = functional.normalize(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    keeper.begin(codebook)
    torch.manual_seed(0)
    for step in range(4 * RESTART_EVERY):
        keeper.update(codebook, points, (points @ codebook.T).argmax(1), step)
    assert (points @ codebook.T).amax(1).min() > 0.95
