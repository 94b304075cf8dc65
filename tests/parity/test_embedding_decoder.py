"""Both embedding decoders against the recorded program, its edge cases included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pigeon_cli.core.configs import EmbeddingDecoderConfig
from pigeon_cli.core.vocabulary import RELEASED_VOCABULARY
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder, LowResolutionDecoder
from pigeon_cli.models.quantizer import Quantizer
from tests.parity.golden import TOLERANCE, GoldenFile, Goldens, as_array, assert_close_absmax, fill

PUBLISHED_OUTPUT_WIDTH = 1408
"""Width after the task layer; fixed in the published program, whatever the model width (NOTES 1)."""


def published_config(goldens: Goldens) -> EmbeddingDecoderConfig:
    """Dimensions of the recorded decoders."""
    size = goldens.size["dec"]
    return EmbeddingDecoderConfig(
        code_width=size["in_chans"],
        width=size["embed_dim"],
        depth=size["depth"],
        heads=size["num_heads"],
        queries=(size["img_size"] // size["patch_size"]) ** 2,
        mlp_ratio=size["mlp_ratio"],
    )


@pytest.fixture(scope="module")
def decoder(goldens: Goldens) -> EmbeddingDecoder:
    module = EmbeddingDecoder(published_config(goldens), PUBLISHED_OUTPUT_WIDTH).eval()
    fill(module, "hires", goldens.seed)
    return module


@pytest.fixture(scope="module")
def quantizer(goldens: Goldens) -> Quantizer:
    size = goldens.size["tok"]
    module = Quantizer(size["n_code"], size["code_dim"])
    fill(module, "tok", goldens.seed, lambda name: f"quantize.{name}")
    return module


@pytest.fixture(scope="module")
def golden(goldens: Goldens) -> GoldenFile:
    return goldens.load("05_decoders")


@pytest.fixture(scope="module")
def codes(golden: GoldenFile) -> list[Tensor]:
    ids = golden.tensor("in_ids_concat") - RELEASED_VOCABULARY.first_code
    return list(torch.split(ids, [int(count) for count in golden["in_nums"]]))


def batch(codes: list[Tensor], quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """Code vectors [B, L, width] and mask [B, L] of code sequences."""
    padded = pad_sequence(codes, batch_first=True, padding_value=-1)
    with torch.no_grad():
        return quantizer.lookup(padded), padded >= 0


def test_high_resolution_decoder(
    golden: GoldenFile, decoder: EmbeddingDecoder, quantizer: Quantizer, codes: list[Tensor]
) -> None:
    with torch.no_grad():
        condition = decoder(*batch(codes, quantizer))
    golden.check_large(condition.context, "prompt_embeds")
    assert_close_absmax(condition.context[0, 0], golden["prompt_embeds_row0"])
    assert_close_absmax(condition.context.mean(1), golden["prompt_embeds_mean"])
    assert_close_absmax(condition.pooled, golden["pooled"])


def test_low_resolution_decoder(
    goldens: Goldens, golden: GoldenFile, quantizer: Quantizer, codes: list[Tensor]
) -> None:
    module = LowResolutionDecoder(published_config(goldens), PUBLISHED_OUTPUT_WIDTH).eval()
    fill(module, "lores", goldens.seed)
    with torch.no_grad():
        context = module(*batch(codes, quantizer))
    golden.check_large(context, "lores_out")
    assert_close_absmax(context[0, 0], golden["lores_row0"])
    assert_close_absmax(context.mean(1), golden["lores_mean"])


def test_padding_does_not_matter(decoder: EmbeddingDecoder, quantizer: Quantizer, codes: list[Tensor]) -> None:
    with torch.no_grad():
        together, alone = decoder(*batch(codes, quantizer)), decoder(*batch(codes[1:2], quantizer))
    assert_close_absmax(together.context[1:2], alone.context)
    assert_close_absmax(together.pooled[1:2], alone.pooled)


def test_keep_hides_exactly_and_carries_a_gradient(
    decoder: EmbeddingDecoder, quantizer: Quantizer, codes: list[Tensor]
) -> None:
    vectors, mask = batch(codes, quantizer)
    keep = torch.ones(mask.shape)
    keep[:, ::3] = 0
    keep.requires_grad_()
    with torch.no_grad():
        hidden = decoder(vectors, mask & (keep > 0))
    multiplied = decoder(vectors, mask, keep)
    assert_close_absmax(multiplied.context, hidden.context, 1e-5)
    (gradient,) = torch.autograd.grad(multiplied.pooled.square().sum(), keep)
    assert bool((gradient[mask] != 0).all())
    assert not bool(gradient[~mask].any())


def test_batch_without_any_code(golden: GoldenFile, decoder: EmbeddingDecoder) -> None:
    width = decoder.config.code_width
    with torch.no_grad():
        condition = decoder(torch.zeros(1, 0, width), torch.zeros(1, 0, dtype=torch.bool))
    assert_close_absmax(condition.context.mean(1)[0], golden["edge_batch_without_any_token_prompt_mean"])
    assert_close_absmax(condition.pooled[0], golden["edge_batch_without_any_token_pooled"])


def test_sample_without_code_in_a_batch(golden: GoldenFile, decoder: EmbeddingDecoder) -> None:
    """Which sample filled the recorded batch is not written down, so one of the recorded lengths has to match."""
    context = golden["edge_no_visual_token_prompt_mean"]
    pooled = golden["edge_no_visual_token_pooled"]
    differences = []
    for length in {int(count) for count in golden["in_nums"]}:
        vectors, mask = torch.zeros(1, length, decoder.config.code_width), torch.zeros(1, length, dtype=torch.bool)
        with torch.no_grad():
            condition = decoder(vectors, mask)
        found = [(condition.context.mean(1)[0], context), (condition.pooled[0], pooled)]
        differences.append(max(np.abs(as_array(a) - b).max() / np.abs(b).max() for a, b in found))
    assert min(differences) <= TOLERANCE


def test_more_codes_than_queries_are_cut(
    goldens: Goldens, golden: GoldenFile, decoder: EmbeddingDecoder, quantizer: Quantizer
) -> None:
    ids = goldens.load("02_03_04_visual_tokenizer").tensor("noise_ids") - RELEASED_VOCABULARY.first_code
    assert len(ids) > decoder.config.queries
    with torch.no_grad():
        condition = decoder(*batch([ids], quantizer))
    assert_close_absmax(condition.context.mean(1)[0], golden["edge_long_prompt_mean"])
