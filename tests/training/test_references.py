"""Whose drawing of a meaning stands before a picture that language training asks for."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np

from pigeon_cli.training.code_cache import EncodedLook
from pigeon_cli.training.data.looks import PLAIN
from pigeon_cli.training.sequences import COPY_SHARE, SequenceSampler
from tests.tiny_model import tiny_spec

FAMILIES = ("fluent", "fluent", "noto", "twemoji", "fluent")
MEANINGS = ("cat", "cat", "cat", "cat", "dog")
DRAWN = np.full(4, 99, dtype=np.int16)


def sampler() -> SequenceSampler:
    """Five plain pictures, one a set; the codes of a picture are all its number."""
    records = [
        SimpleNamespace(id=number, family=family, meaning=meaning)
        for number, (family, meaning) in enumerate(zip(FAMILIES, MEANINGS, strict=True))
    ]
    looks = [EncodedLook("set", PLAIN, (number,), np.full((1, 4), number, dtype=np.int16)) for number in range(5)]
    return SequenceSampler(tiny_spec(290), SimpleNamespace(records=records), looks, None)  # type: ignore[arg-type]


def drawn_from(easy: bool, number: int) -> list[int]:
    source, rng = sampler(), random.Random(0)
    record = source.dataset.records[number]
    rows = [source._easy_reference(record, DRAWN, rng) if easy else source.reference(record, rng) for _ in range(400)]
    return [-1 if row is None else int(row[0]) for row in rows]


def test_an_easy_reference_is_the_picture_itself_or_a_plain_drawing_of_its_family() -> None:
    found = drawn_from(easy=True, number=0)
    assert set(found) == {99, 0, 1}
    assert abs(found.count(99) / len(found) - COPY_SHARE) < 0.08


def test_other_references_are_of_another_family_and_missing_where_there_is_none() -> None:
    assert set(drawn_from(easy=False, number=0)) == {2, 3}
    assert set(drawn_from(easy=False, number=4)) == {-1}
