"""Whose drawing of a meaning stands before a picture that training asks for, and what the answer to it is."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece

from pigeon_cli.pipeline.prompt import REFERENCE_SLOT
from pigeon_cli.training.code_cache import EncodedLook
from pigeon_cli.training.data.looks import PLAIN, Look, draw_look, geometry_of
from pigeon_cli.training.sequences import SequenceSampler, most_typical
from tests.tiny_model import STYLE_TOKENS, WORDS, text_model, tiny_spec

FAMILIES = ("fluent", "fluent", "noto", "twemoji", "fluent")
MEANINGS = ("cat", "cat", "cat", "cat", "dog")
TOKENS = STYLE_TOKENS + 16
CODEBOOK = np.eye(64, dtype=np.float32)
MOVED = 20
"""What is added to the codes of a drawing that a look moves."""


def codes(number: int) -> np.ndarray:
    return np.full((4, TOKENS), number, dtype=np.int16)


def sampler() -> SequenceSampler:
    """Five plain pictures, one a set and four times in its look; the codes of a picture are all its number. Its
    reference is the next one."""
    records = [
        SimpleNamespace(id=number, family=family, meaning=meaning, label=meaning, tags=())
        for number, (family, meaning) in enumerate(zip(FAMILIES, MEANINGS, strict=True))
    ]
    looks = [
        EncodedLook(
            "set", PLAIN, (number,) * 4, codes(number), ((number + 1) % 5,) * 4, codes(MOVED + (number + 1) % 5)
        )
        for number in range(5)
    ]
    text = sentencepiece.SentencePieceProcessor(model_proto=text_model(WORDS, 320))
    dataset = SimpleNamespace(records=records)
    return SequenceSampler(tiny_spec(320), dataset, looks, text, CODEBOOK)  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "found"), [(0, {2, 3}), (4, {-1})])
def test_the_scorer_compares_families_and_finds_none_where_there_is_one(number: int, found: set[int]) -> None:
    source, rng = sampler(), random.Random(0)
    rows = [source.reference(source.dataset.records[number], rng) for _ in range(400)]
    assert {-1 if row is None else int(row[0]) for row in rows} == found


def test_the_answer_has_the_style_of_the_history_and_the_places_of_the_moved_reference() -> None:
    source = sampler()
    history = [codes(5)[0], codes(7)[0], codes(7)[0]]
    assert source.restyled(source.looks[2], 0, history).tolist() == [7] * STYLE_TOKENS + [MOVED + 3] * 16
    assert source.restyled(source.looks[2], 0, []).tolist() == [2] * STYLE_TOKENS + [MOVED + 3] * 16


@pytest.mark.parametrize(("styles", "typical"), [((1,), 0), ((1, 2), 1), ((1, 2, 1), 2), ((3, 1, 1, 2, 3, 3), 5)])
def test_the_most_typical_picture_agrees_with_most_and_is_the_last_of_equals(
    styles: tuple[int, ...], typical: int
) -> None:
    history = [[style] * STYLE_TOKENS + [40 + place] * 16 for place, style in enumerate(styles)]
    assert most_typical(history, CODEBOOK, STYLE_TOKENS) == typical


def test_a_model_without_style_tokens_answers_with_the_picture_itself() -> None:
    source = sampler()
    source.spec = replace(source.spec, tokenizer=replace(source.spec.tokenizer, style_tokens=0))
    assert source.restyled(source.looks[1], 0, [codes(7)[0]]).tolist() == codes(1)[0].tolist()


def test_a_sequence_asks_with_the_plain_reference_of_its_picture() -> None:
    source, answered = sampler(), 0
    first, start = source.spec.vocabulary.first_code, source.spec.vocabulary.image_start
    for seed in range(20):
        batch = source.batch(random.Random(seed), 2, pictures=2)
        references = iter(batch.references.tolist())
        for row in batch.ids.tolist():
            for place, token in enumerate(row):
                if token == start and place and row[place - 1] == REFERENCE_SLOT:
                    asked = next(references)[0]
                    drawn = [code - first for code in row[place + 1 : place + 1 + TOKENS]]
                    # All pictures of a look have its one style here.
                    assert drawn == [(asked - 1) % 5] * STYLE_TOKENS + [MOVED + asked] * 16
                    answered += 1
        assert next(references, None) is None
    assert answered > 20


def test_only_what_moves_places_is_left_of_a_look_for_its_reference() -> None:
    rng = random.Random(1)
    looks = [draw_look(rng) for _ in range(200)]
    assert {kind for look in looks for kind in geometry_of(look).kinds} == {"margin", "tilt"}
    assert all(geometry_of(look) == Look() for look in looks if not {"margin", "tilt"} & set(look.kinds))
