"""What is kept of a reference draws the answer's codes towards its own, place by place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.models.language import build_language_model
from pigeon_cli.models.quantizer import Quantizer
from pigeon_cli.pipeline.mask import TokenLayout, lay_out
from pigeon_cli.pipeline.reference import favoured
from pigeon_cli.pipeline.sampling import Prefix, allowed_ids, join_prefixes, prefill, sample_codes
from tests.tiny_model import CODES, STYLE_TOKENS, tiny_spec

PLAIN = tiny_spec(300)
FIRST, PATCH_CODES = PLAIN.vocabulary.first_code, PLAIN.tokenizer.patch_codes
REFERENCE = (50, 60, 3, 4, 5, 6)
"""Two style codes, four of places."""


def faithful(fidelity: float) -> ModelSpec:
    return replace(PLAIN, sampling=replace(PLAIN.sampling, fidelity=fidelity))


def table() -> Quantizer:
    torch.manual_seed(0)
    return Quantizer(CODES, PLAIN.tokenizer.code_width)


def layout(reference: Sequence[int] = REFERENCE) -> TokenLayout:
    history = [[FIRST + code for code in (51, 61, 7)]]
    return lay_out([history], [[FIRST + code for code in reference]], PLAIN.vocabulary.pad)


def kept(*hidden: int) -> torch.Tensor:
    """Float [1, 3 + 6] that hides those places of the reference."""
    keep = torch.ones(1, 9)
    keep[0, [3 + place for place in hidden]] = 0
    return keep


def favour(spec: ModelSpec, keep: torch.Tensor) -> torch.Tensor:
    values = favoured(layout(), keep, table(), spec)
    assert values is not None
    return values.detach()


def test_a_place_favours_its_own_code_and_others_by_their_cosine() -> None:
    values, codebook = favour(faithful(5.0), kept())[0], table().embedding.weight.detach()
    cosines = codebook[:PATCH_CODES] @ codebook[REFERENCE[2]]
    assert values[2, FIRST + REFERENCE[2]] == pytest.approx(5.0)
    torch.testing.assert_close(values[2, FIRST : FIRST + PATCH_CODES], 5 * cosines.clamp(min=0))


def test_neither_style_tokens_nor_hidden_places_nor_other_ids_are_favoured() -> None:
    values = favour(faithful(5.0), kept(3))[0]
    assert not values[:STYLE_TOKENS].any()
    assert not values[3].any()
    assert values[[2, 4, 5]].any(dim=1).all()
    assert not values[:, :FIRST].any()
    assert not values[:, FIRST + PATCH_CODES :].any()


def test_a_model_without_fidelity_favours_nothing() -> None:
    assert favoured(layout(), kept(), table(), PLAIN) is None


def test_a_drawing_may_be_followed_more_closely_than_other_references() -> None:
    usual, closely = favour(faithful(5.0), kept(3)), favoured(layout(), kept(3), table(), faithful(5.0), 30.0)
    assert closely is not None
    torch.testing.assert_close(closely, usual * 6)


@torch.no_grad()
def start(favour: torch.Tensor | None) -> tuple[object, Prefix]:
    torch.manual_seed(1)
    model = build_language_model(PLAIN.language, PLAIN.vocabulary).eval()
    ids = torch.tensor([[PLAIN.vocabulary.image_start]])
    embedded = model.get_input_embeddings()(ids)
    return model, prefill(model, embedded, torch.ones_like(ids), favour=favour)


def drawn(favour: torch.Tensor | None, guidance: float = 1.0) -> list[int]:
    model, prefix = start(favour)
    settings = replace(PLAIN.sampling, temperature=0.0, guidance=guidance, minimum_tokens=6, maximum_tokens=6)
    rows = sample_codes(
        model,
        prefix,
        [0],
        settings,
        allowed=allowed_ids(PLAIN.vocabulary),
        image_end=PLAIN.vocabulary.image_end,
        unconditional=start(None)[1],
    )
    return [token - FIRST for token in rows[0].token_ids]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_more_faithful_the_more_of_the_reference_is_drawn_where_it_is_kept(guidance: float) -> None:
    free, loose, strict = (
        drawn(None if not fidelity else favour(faithful(fidelity), kept(3)), guidance) for fidelity in (0, 0.001, 100)
    )
    assert loose == free
    assert [strict[place] for place in (2, 4, 5)] == [REFERENCE[place] for place in (2, 4, 5)]
    assert free[2:] != list(REFERENCE[2:])


def test_the_unconditional_rows_are_not_favoured() -> None:
    joined = join_prefixes(start(torch.ones(1, 4, PLAIN.vocabulary.size))[1], start(None)[1])
    assert joined.favour is not None
    assert joined.favour.mean(dim=(1, 2)).tolist() == [1.0, 0.0]
