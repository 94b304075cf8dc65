"""Which candidates are drawn, which are written, and why: every candidate gets its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pigeon_cli.core.records import Candidate


def drop_repeats(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Give every candidate whose codes were drawn before its reason; the first of them stays in the race."""
    first: dict[tuple[int, ...], Candidate] = {}
    checked = []
    for candidate in candidates:
        before = first.setdefault(candidate.codes, candidate)
        if before is not candidate:
            reason = f"not drawn: the same codes as at dial {before.dial:g}, sample {before.sample}"
            candidate = replace(candidate, reason=reason)
        checked.append(candidate)
    return checked


def shortlist(candidates: Sequence[Candidate], count: int) -> tuple[list[Candidate], list[int]]:
    """The ``count`` places with the best prescore, repeats left out; the others get their reason."""
    racing = [place for place, candidate in enumerate(candidates) if not candidate.reason]
    racing.sort(key=lambda place: _placing(candidates[place].prescore), reverse=True)
    listed = list(candidates)
    for number, place in enumerate(racing[count:], start=count + 1):
        reason = f"not drawn: place {number} of {len(racing)} by prescore, and the best {count} were drawn"
        listed[place] = replace(listed[place], reason=reason)
    return listed, racing[:count]


def rank(candidates: Sequence[Candidate], drawn: Sequence[int], count: int) -> tuple[list[Candidate], list[int]]:
    """Order the places ``drawn`` by score, or by prescore where nothing looked at pixels.

    The best ``count`` are chosen and ranked, all get their reason.
    """
    seen = any(candidates[place].score is not None for place in drawn)
    by = "score" if seen else "prescore"
    order = sorted(drawn, key=lambda place: _placing(getattr(candidates[place], by)), reverse=True)
    ranked = list(candidates)
    for number, place in enumerate(order, start=1):
        chosen = number <= count
        verdict = "won" if chosen else "lost"
        reason = f"{verdict}: place {number} of {len(order)} drawn images by {by}"
        ranked[place] = replace(ranked[place], rank=number if chosen else None, chosen=chosen, reason=reason)
    return ranked, order


def warnings_of(candidates: Sequence[Candidate], count: int) -> tuple[str, ...]:
    """What a user should know about the candidates as a whole."""
    chosen = sum(candidate.chosen for candidate in candidates)
    if chosen == count:
        return ()
    return (f"{chosen} images instead of {count}: the other candidates repeated the same codes",)


def _placing(score: float | None) -> float:
    # NaN compares with nothing; it goes last.
    return float("-inf") if score is None or score != score else score
