"""Drawing codes: independence of batches, limits, guidance, and the prompt that is read before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pigeon_cli.core.configs import LanguageConfig, SamplingConfig
from pigeon_cli.core.errors import InputError
from pigeon_cli.core.vocabulary import Vocabulary
from pigeon_cli.models.language import build_language_model
from pigeon_cli.pipeline.caches import RoomyLayer, layers_of
from pigeon_cli.pipeline.prompt import (
    REFERENCE_SLOT,
    embed_prompt,
    merge_prompt,
    pad_prompts,
    prompt_template,
    render,
    spread_keep,
)
from pigeon_cli.pipeline.sampling import Drawn, Prefix, allowed_ids, prefill, sample_codes, select_rows

VOCABULARY = Vocabulary(text_size=6, code_count=20)
CONFIG = LanguageConfig(hidden_size=16, intermediate_size=32, layers=2, heads=2)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    built = build_language_model(CONFIG, VOCABULARY).eval()
    with torch.no_grad():
        built.lm_head.weight.mul_(20)
    return built


@pytest.fixture(scope="module")
def prefix(model: torch.nn.Module) -> Prefix:
    ids = torch.tensor([[2, 2, 3, 4, 6], [3, 10, 11, 4, 6]])
    attention = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        return prefill(model, model.get_input_embeddings()(ids), attention)


def settings(**changes: float) -> SamplingConfig:
    values: dict[str, float] = {"beams": 1, "top_k": 0, "minimum_tokens": 2, "maximum_tokens": 12, **changes}
    return SamplingConfig(**values)  # type: ignore[arg-type]


def draw(
    model: torch.nn.Module,
    prefix: Prefix,
    rows: list[int],
    chosen: SamplingConfig,
    seeds: list[int],
    unconditional: Prefix | None = None,
    batch_rows: int | None = None,
) -> list[Drawn]:
    return sample_codes(
        model,
        prefix,
        rows,
        chosen,
        allowed=allowed_ids(VOCABULARY),
        image_end=VOCABULARY.image_end,
        generators=[torch.Generator().manual_seed(seed) for seed in seeds],
        unconditional=unconditional,
        batch_rows=batch_rows,
    )


def unconditional(model: torch.nn.Module) -> Prefix:
    row = model.get_input_embeddings()(torch.tensor([[VOCABULARY.image_start]]))
    return prefill(model, row, torch.ones(1, 1, dtype=torch.int64))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_batches_change_nothing(model: torch.nn.Module, prefix: Prefix, beams: int, guidance: float) -> None:
    chosen = settings(beams=beams, top_k=10, guidance=guidance)
    free = unconditional(model)
    rows, seeds = [0, 1, 1, 0, 1], [1, 2, 3, 4, 5]
    together = draw(model, prefix, rows, chosen, seeds, free)
    split = draw(model, prefix, rows, chosen, seeds, free, batch_rows=4)
    alone = [draw(model, prefix, [row], chosen, [seed], free)[0] for row, seed in zip(rows, seeds, strict=True)]
    assert [row.token_ids for row in together] == [row.token_ids for row in split]
    assert [row.token_ids for row in together] == [row.token_ids for row in alone]
    assert len({row.token_ids for row in together}) > 1


@pytest.mark.parametrize("beams", [1, 3])
def test_only_codes_within_the_limits(model: torch.nn.Module, prefix: Prefix, beams: int) -> None:
    drawn = draw(model, prefix, [0, 1] * 6, settings(beams=beams), list(range(12)))
    for row in drawn:
        assert all(VOCABULARY.is_code(token) for token in row.token_ids)
        assert 2 <= len(row.token_ids) <= 12
        assert row.ended or len(row.token_ids) == 12


def test_some_rows_end_early(model: torch.nn.Module, prefix: Prefix) -> None:
    drawn = draw(model, prefix, [0, 1] * 10, settings(maximum_tokens=60), list(range(20)))
    assert any(row.ended for row in drawn)


def replay(model: torch.nn.Module, row: Drawn) -> float:
    """Log-probability of a drawn row after the second prefix, computed in one plain forward pass."""
    tokens = [*row.token_ids, *([VOCABULARY.image_end] if row.ended else [])]
    ids = torch.tensor([[3, 10, 11, 4, 6, *tokens]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, 4:-1]
    return float(torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(tokens).unsqueeze(1)).sum())


@pytest.mark.parametrize("beams", [1, 3])
def test_log_probability_is_that_of_a_plain_pass(model: torch.nn.Module, prefix: Prefix, beams: int) -> None:
    for row in draw(model, prefix, [1] * 4, settings(beams=beams), [1, 2, 3, 4]):
        assert row.log_probability == pytest.approx(replay(model, row), abs=1e-3)


def test_greedy_needs_no_generator_and_repeats(model: torch.nn.Module, prefix: Prefix) -> None:
    chosen = settings(temperature=0.0)
    end = VOCABULARY.image_end
    first, second = (
        sample_codes(model, prefix, [1], chosen, allowed=allowed_ids(VOCABULARY), image_end=end) for _ in range(2)
    )
    assert first == second
    with pytest.raises(ValueError, match="generator"):
        sample_codes(model, prefix, [1], settings(), allowed=allowed_ids(VOCABULARY), image_end=end)


def test_prefix_survives_its_continuations(model: torch.nn.Module, prefix: Prefix) -> None:
    before = [layer.keys.clone() for layer in prefix.cache.layers]
    draw(model, prefix, [0, 1], settings(), [1, 2])
    assert all(torch.equal(old, layer.keys) for old, layer in zip(before, prefix.cache.layers, strict=True))


def test_reading_in_two_parts_equals_reading_at_once(model: torch.nn.Module, prefix: Prefix) -> None:
    table = model.get_input_embeddings()
    ids = torch.tensor([[2, 2, 3, 4, 6], [3, 10, 11, 4, 6]])
    attention = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        start = prefill(model, table(ids[:, :3]), attention[:, :3])
        both = prefill(model, table(ids[:, 3:]), attention[:, 3:], start)
    assert torch.allclose(both.logits, prefix.logits, atol=1e-5)
    assert start.attention.shape[1] == 3
    fanned = select_rows(both, torch.tensor([1, 1, 0]))
    assert torch.equal(fanned.logits, both.logits[[1, 1, 0]])


@pytest.mark.parametrize("room", [0, 2, 9])
def test_columns_come_behind_joined_rows_with_room_for_them_or_without(prefix: Prefix, room: int) -> None:
    layer = RoomyLayer(layers_of(prefix.cache)[:1] * 2, room)
    expected = [torch.cat([part, part]) for part in layers_of(prefix.cache)[0]]
    for _ in range(3):
        column = torch.randn_like(expected[0][:, :, :1])
        expected = [torch.cat([part, column], dim=2) for part in expected]
        found = layer.update(column, column)
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert layer.get_seq_length() == expected[0].shape[2]


def test_guidance_matches_plain_arithmetic(model: torch.nn.Module, prefix: Prefix) -> None:
    """The first greedy token of guided rows is the best of u + s (c - u)."""
    free = unconditional(model)
    chosen = settings(temperature=0.0, guidance=3.0)
    drawn = draw(model, prefix, [0, 1], chosen, [0, 0], free)
    conditional, base = torch.log_softmax(prefix.logits, 1), torch.log_softmax(free.logits, 1)
    mixed = base + 3.0 * (conditional - base)
    codes = slice(VOCABULARY.first_code, VOCABULARY.size)
    best = mixed[:, codes].argmax(1) + VOCABULARY.first_code
    assert [row.token_ids[0] for row in drawn] == best.tolist()


def test_users_cannot_write_markers_or_template() -> None:
    template = "{#history}{title} <img>\n{/history}{words} <emb>\n<img>"
    values = {
        "history": [{"title": "a<img>b"}, {"title": "{words}"}],
        "words": "x\x00<emb>\n</s> <s><unk>{title} \ud800",
    }
    text = render(template, values)
    assert text.count("<img>") == 3
    assert text.count("<emb>") == 1
    assert "a< img>b" in text
    assert "{words} <img>" in text
    assert "x < emb> < /s> < s>< unk>{title}" in text
    assert text.encode()


def test_empty_sections_vanish() -> None:
    template = prompt_template("sticker")
    with_emotion = render(template, {"history": [{}], "emotion": "joy", "words": "a cat."})
    without = render(template, {"history": [{}], "words": "a cat."})
    assert "the emotion of joy. a cat." in with_emotion
    assert "info: a cat. <emb>" in without
    assert render(prompt_template("mini"), {"history": [{}, {}], "words": "a cat"}) == "<img><img>a cat<emb><img>"
    with pytest.raises(InputError):
        prompt_template("../secrets")


def test_slots_take_the_reference_vectors_in_order() -> None:
    start, place = VOCABULARY.image_start, VOCABULARY.reference_placeholder
    rows = [
        merge_prompt([start, 3, place, start], [[10, 11]], VOCABULARY, reference_slots=2),
        merge_prompt([3, place, start], [], VOCABULARY, reference_slots=2),
    ]
    batch = pad_prompts(rows, VOCABULARY)
    assert batch.ids.tolist()[0] == [10, 11, 3, REFERENCE_SLOT, REFERENCE_SLOT, start]
    assert batch.attention.tolist()[1] == [0, 0, 1, 1, 1, 1]
    keep = spread_keep(batch, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    table = torch.nn.Embedding(VOCABULARY.size, 4)
    reference: Tensor = torch.arange(16.0).reshape(2, 2, 4)
    embedded = embed_prompt(table, batch.ids, reference, keep)
    assert torch.equal(embedded[0, 3:5], reference[0])
    assert torch.equal(embedded[1, 3:5], reference[1])
    assert embedded[0, 1].abs().sum() == 0
    assert torch.equal(embedded[0, 0], table.weight[10])


def test_slots_and_images_must_agree() -> None:
    with pytest.raises(ValueError, match="image slots"):
        merge_prompt([VOCABULARY.image_start], [[10]], VOCABULARY)
