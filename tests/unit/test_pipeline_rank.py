"""Pruning by prescore, ranking by score, a reason for everyone."""

from __future__ import annotations

from dataclasses import replace

from pigeon_cli.core.records import Candidate
from pigeon_cli.pipeline.rank import drop_repeats, rank, shortlist, warnings_of


def candidates(*prescores: float) -> list[Candidate]:
    return [Candidate(0.1 * place, 0, (place,), 1, 0, prescore=value) for place, value in enumerate(prescores)]


def test_the_first_of_equal_codes_stays() -> None:
    tried = [replace(each, codes=(7,)) for each in candidates(0.1, 0.9, 0.5)]
    checked = drop_repeats(tried)
    assert [bool(each.reason) for each in checked] == [False, True, True]
    assert shortlist(checked, 2)[1] == [0]


def test_the_best_prescores_are_drawn_and_nan_is_last() -> None:
    listed, best = shortlist(candidates(0.1, float("nan"), 0.9, 0.5), 3)
    assert best == [2, 3, 0]
    assert "place 4 of 4" in listed[1].reason


def test_scores_rank_what_was_drawn() -> None:
    tried = candidates(0.9, 0.8, 0.7)
    tried[0], tried[1] = replace(tried[0], score=0.1), replace(tried[1], score=0.2)
    ranked, order = rank(tried, [0, 1], 1)
    assert order == [1, 0]
    assert [(each.rank, each.chosen) for each in ranked] == [(None, False), (1, True), (None, False)]
    assert ranked[1].reason.startswith("won") and ranked[0].reason.startswith("lost")
    assert warnings_of(ranked, 1) == ()
    assert "1 images instead of 2" in warnings_of(ranked, 2)[0]


def test_without_a_look_at_pixels_the_prescore_ranks() -> None:
    ranked, order = rank(candidates(0.1, 0.9, 0.5), [1, 2], 1)
    assert order == [1, 2]
    assert ranked[1].reason == "won: place 1 of 2 drawn images by prescore"
