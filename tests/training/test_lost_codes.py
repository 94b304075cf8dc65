"""What makes language training harder: codes that are lost on their way in."""

from __future__ import annotations

import torch

from pigeon_cli.training.tasks.language import LOST_SHARE, LanguageTask
from tests.tiny_model import tiny_spec

CODES = 400
"""Codes of each of the two pictures of a row."""


def lost_shares(rows: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares of lost codes, [64] each, of pictures that nothing asks for and of pictures that are asked for."""
    task = LanguageTask.__new__(LanguageTask)
    task.spec = tiny_spec(text_size=290)
    vocabulary = task.spec.vocabulary
    picture = [vocabulary.image_start, *[vocabulary.first_code] * CODES, vocabulary.image_end]
    ids = torch.tensor([picture * 2]).expand(64, -1)
    asked = (torch.arange(ids.shape[1]) >= len(picture)).expand(64, -1)
    torch.manual_seed(0)
    lost = task._lost(ids, asked, rows)
    assert not lost[ids < vocabulary.first_code].any()
    free, own = lost.float().chunk(2, dim=1)
    return free.sum(1) / CODES, own.sum(1) / CODES


def test_only_pictures_that_are_asked_for_lose_most_of_their_codes() -> None:
    free, asked = lost_shares(rows=1.0)
    assert float(free.max()) < LOST_SHARE + 0.1
    assert float(asked.max()) > 0.8
    assert float(asked.mean()) > 0.4


def test_evaluation_loses_nothing() -> None:
    free, asked = lost_shares(rows=0.0)
    assert not free.any() and not asked.any()
