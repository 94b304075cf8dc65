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
from pigeon_cli.training.sequences import SequenceSampler, mean_style, most_typical
from tests.tiny_model import STYLE_TOKENS, WORDS, text_model, tiny_spec

FAMILIES = ("fluent", "fluent", "noto", "twemoji", "fluent")
MEANINGS = ("cat", "cat", "cat", "cat", "dog")
TOKENS = STYLE_TOKENS + 16
CODEBOOK = np.eye(64, dtype=np.float32)
SHAPE = 20
"""What is added to the codes of a drawing for its shape."""


def codes(number: int) -> np.ndarray:
    return np.full((4, TOKENS), number, dtype=np.int16)


def sampler() -> SequenceSampler:
    """Five plain pictures, one a set and four times in its look; the codes of a picture are all its number."""
    records = [
        SimpleNamespace(id=number, family=family, meaning=meaning, label=meaning, tags=())
        for number, (family, meaning) in enumerate(zip(FAMILIES, MEANINGS, strict=True))
    ]
    looks = [
        EncodedLook(f"set {number}", PLAIN, (number,) * 4, codes(number), codes(SHAPE + number)) for number in range(5)
    ]
    text = sentencepiece.SentencePieceProcessor(model_proto=text_model(WORDS, 320))
    dataset = SimpleNamespace(records=records)
    made = SequenceSampler(tiny_spec(320), dataset, looks, text, CODEBOOK)  # type: ignore[arg-type]
    made.alike = {}
    return made


@pytest.mark.parametrize(("number", "found"), [(0, {2, 3}), (4, {-1})])
def test_the_scorer_compares_families_and_finds_none_where_there_is_one(number: int, found: set[int]) -> None:
    source, rng = sampler(), random.Random(0)
    rows = [source.reference(source.dataset.records[number], rng) for _ in range(400)]
    assert {-1 if row is None else int(row[0]) for row in rows} == found


def test_a_reference_is_of_another_family_but_for_some_and_of_the_own_where_there_is_no_other() -> None:
    source, rng = sampler(), random.Random(0)
    found = [source.asking(source.dataset.records[0], rng).id for _ in range(400)]
    assert set(found) == {0, 1, 2, 3}
    assert 0.05 < sum(number < 2 for number in found) / len(found) < 0.15
    assert source.asking(source.dataset.records[4], rng).id == 4


def test_most_references_have_the_lines_of_the_answer_where_there_are_any() -> None:
    source, rng = sampler(), random.Random(0)
    source.alike = {0: [source.dataset.records[2]], 2: []}
    found = [source.asking(source.dataset.records[0], rng).id for _ in range(400)]
    assert 0.75 < found.count(2) / len(found) < 0.9
    assert {source.asking(source.dataset.records[2], rng).id for _ in range(100)} == {0, 1, 2, 3}


def test_the_answer_has_the_style_of_the_history_and_the_shape_of_the_right_drawing() -> None:
    source = sampler()
    history = [codes(5)[0], codes(7)[0], codes(7)[0]]
    assert source.answer(source.looks[2], 0, history).tolist() == [7] * STYLE_TOKENS + [SHAPE + 2] * 16
    assert source.answer(source.looks[2], 0, []).tolist() == [2] * STYLE_TOKENS + [SHAPE + 2] * 16


def test_the_mean_style_is_that_of_all_pictures() -> None:
    mean = mean_style([codes(5)[0], codes(7)[0], codes(7)[0], codes(7)[0]], CODEBOOK, STYLE_TOKENS)
    assert mean.shape == (STYLE_TOKENS, 64)
    assert mean[:, 5].tolist() == [0.25] * STYLE_TOKENS and mean[:, 7].tolist() == [0.75] * STYLE_TOKENS


@pytest.mark.parametrize(("styles", "typical"), [((1,), 0), ((1, 2), 1), ((1, 2, 1), 2), ((3, 1, 1, 2, 3, 3), 5)])
def test_the_most_typical_picture_agrees_with_most_and_is_the_last_of_equals(
    styles: tuple[int, ...], typical: int
) -> None:
    history = [[style] * STYLE_TOKENS + [40 + place] * 16 for place, style in enumerate(styles)]
    assert most_typical(history, CODEBOOK, STYLE_TOKENS) == typical


def test_a_model_without_style_tokens_answers_with_the_picture_itself() -> None:
    source = sampler()
    source.spec = replace(source.spec, tokenizer=replace(source.spec.tokenizer, style_tokens=0))
    assert source.answer(source.looks[1], 0, [codes(7)[0]]).tolist() == codes(1)[0].tolist()


def test_a_sequence_asks_with_a_plain_drawing_of_the_same_meaning_and_tells_its_style() -> None:
    source, answered = sampler(), 0
    first, start = source.spec.vocabulary.first_code, source.spec.vocabulary.image_start
    for seed in range(20):
        batch = source.batch(random.Random(seed), 2, pictures=2)
        asked = iter(zip(batch.references.tolist(), batch.styles, strict=True))
        for row in batch.ids.tolist():
            for place, token in enumerate(row):
                if token == start and place and row[place - 1] == REFERENCE_SLOT:
                    reference, style = next(asked)
                    drawn = [code - first for code in row[place + 1 : place + 1 + TOKENS]]
                    # All pictures of a look have its one style here.
                    number = drawn[0]
                    assert drawn == [number] * STYLE_TOKENS + [SHAPE + number] * 16
                    assert bool((style[:, number] == 1).all())
                    assert MEANINGS[reference[0]] == MEANINGS[number]
                    answered += 1
        assert next(asked, None) is None
    assert answered > 20


def test_only_what_moves_places_is_left_of_a_look_for_a_shape() -> None:
    rng = random.Random(1)
    looks = [draw_look(rng) for _ in range(200)]
    assert {kind for look in looks for kind in geometry_of(look).kinds} == {"margin", "tilt"}
    assert all(geometry_of(look) == Look() for look in looks if not {"margin", "tilt"} & set(look.kinds))
