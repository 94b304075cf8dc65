"""Encoder, selector, merger, task layer and quantizer against the recorded program.

``eva_pooled_head`` is left out on purpose: the final ``norm`` and ``head`` of the published encoder are not on the path
to codes, and :class:`EvaVisionTransformer` does not have them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pigeon_cli.core.configs import VisualTokenizerConfig
from pigeon_cli.history.preprocess import to_pixels, to_rgb
from pigeon_cli.models.blocks import policy_attention
from pigeon_cli.models.merger import POLICY_EPSILON
from pigeon_cli.models.quantizer import ROWS_AT_ONCE, Quantizer
from pigeon_cli.models.selector import keep_decision
from pigeon_cli.models.visual_tokenizer import TokenizedImages, VisualTokenizer, pack
from tests.parity.golden import (
    IMAGE_FILES,
    IMAGES,
    GoldenFile,
    Goldens,
    as_array,
    assert_close_absmax,
    exp_noise,
    fill,
)

PARTS = {
    "selector": "token_predictor",
    "merger": "causal_encoder",
    "task_layer": "encode_task_layer",
    "quantizer": "quantize",
}
DECISIONS = ["noise", "argmax"]


def published_config(goldens: Goldens) -> VisualTokenizerConfig:
    """Dimensions of the recorded tokenizer."""
    size = goldens.size["tok"]
    return VisualTokenizerConfig(
        image_size=size["img_size"],
        patch_size=size["patch_size"],
        width=size["width"],
        encoder_depth=goldens.size["eva"]["layers"],
        encoder_heads=goldens.size["eva"]["width"] // goldens.size["eva"]["head_width"],
        merger_depth=size["layers"],
        merger_heads=size["heads"],
        code_count=size["n_code"],
        code_width=size["code_dim"],
    )


def filled_tokenizer(goldens: Goldens) -> VisualTokenizer:
    """The tokenizer with the weights of the rule."""
    tokenizer = VisualTokenizer(published_config(goldens)).eval()
    fill(tokenizer.encoder, "eva", goldens.seed)
    for part, prefix in PARTS.items():
        fill(tokenizer.get_submodule(part), "tok", goldens.seed, f"{prefix}.".__add__)
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer(goldens: Goldens) -> VisualTokenizer:
    return filled_tokenizer(goldens)


@pytest.fixture(scope="module")
def golden(goldens: Goldens) -> GoldenFile:
    return goldens.load("02_03_04_visual_tokenizer")


@pytest.fixture(scope="module")
def pixels(tokenizer: VisualTokenizer) -> Tensor:
    images = [to_rgb(Image.open(IMAGES / name), "drop") for name in IMAGE_FILES]
    return torch.from_numpy(np.stack([to_pixels(image, tokenizer.config.image_size) for image in images]))


@pytest.fixture(scope="module")
def rows(tokenizer: VisualTokenizer, pixels: Tensor) -> Tensor:
    """All rows of the encoder, class token first."""
    with torch.no_grad():
        output: Tensor = tokenizer.encoder(pixels)
    return output


@pytest.fixture(scope="module", params=DECISIONS)
def decision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenized(goldens: Goldens, tokenizer: VisualTokenizer, pixels: Tensor, decision: str) -> TokenizedImages:
    shape = (len(pixels), tokenizer.config.patches, 2)
    noise = torch.from_numpy(exp_noise(goldens.seed, "tokpred", shape)) if decision == "noise" else None
    with torch.no_grad():
        return tokenizer.encode(pixels, noise)


def test_pixels(golden: GoldenFile, pixels: Tensor) -> None:
    golden.check_large(pixels, "pixels", 1e-7)


def test_noise_rule(goldens: Goldens, golden: GoldenFile) -> None:
    expected = golden["tokpred_exp_noise"]
    assert np.array_equal(exp_noise(goldens.seed, "tokpred", expected.shape), expected)


def test_encoder_features(golden: GoldenFile, rows: Tensor) -> None:
    golden.check_large(rows, "eva_features")
    assert_close_absmax(rows[0, 0], golden["eva_cls_row_img0"])
    assert_close_absmax(rows[0, 1], golden["eva_row1_img0"])
    assert_close_absmax(rows[5, 17], golden["eva_row17_img5"])


def test_selector_log_probabilities(golden: GoldenFile, tokenizer: VisualTokenizer, rows: Tensor) -> None:
    with torch.no_grad():
        assert_close_absmax(tokenizer.selector(rows[:, 1:]), golden["tokpred_logprob"])


def test_keep_decision_is_equal(golden: GoldenFile, tokenized: TokenizedImages, decision: str) -> None:
    assert np.array_equal(as_array(tokenized.keep), golden[f"{decision}_keep"].astype(bool))
    assert np.array_equal(as_array(tokenized.keep.sum(1)), golden[f"{decision}_keep_counts"])


def test_merger_output(golden: GoldenFile, tokenized: TokenizedImages, decision: str) -> None:
    golden.check_large(tokenized.features, f"{decision}_merger_out")


def test_task_vectors(golden: GoldenFile, tokenized: TokenizedImages, decision: str) -> None:
    kept = tokenized.vectors[tokenized.keep]
    golden.check_large(kept, f"{decision}_task_out")
    assert_close_absmax(kept[0], golden[f"{decision}_task_out_row0"])


def test_codes_are_equal(goldens: Goldens, golden: GoldenFile, tokenized: TokenizedImages, decision: str) -> None:
    vocabulary = goldens.vocabulary
    ids = tokenized.codes[tokenized.keep] + vocabulary.first_code
    assert np.array_equal(as_array(ids), golden[f"{decision}_ids"])
    assert bool((tokenized.codes[~tokenized.keep] == -1).all())
    if decision == "noise":
        first = tokenized.codes[0][tokenized.keep[0]] + vocabulary.first_code
        special = [vocabulary.image_start, *first.tolist(), vocabulary.image_end]
        assert special == golden["noise_ids_img0_add_special"].tolist()


def test_an_image_does_not_depend_on_its_batch(tokenizer: VisualTokenizer, pixels: Tensor) -> None:
    with torch.no_grad():
        together, alone = tokenizer(pixels[:3]), tokenizer(pixels[1:2])
    assert torch.equal(together.codes[1:2], alone.codes)


def test_pack_moves_kept_codes_left() -> None:
    codes = torch.tensor([[5, -1, 7, -1], [1, 2, 3, -1], [-1, -1, -1, 9]])
    packed, mask = pack(codes, codes >= 0)
    assert packed.tolist() == [[5, 7, -1], [1, 2, 3], [9, -1, -1]]
    assert mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]


def test_at_least_one_token_is_kept_and_a_tie_keeps() -> None:
    drop_all = torch.tensor([[[-3.0, 0.0], [-1.0, 0.0], [-2.0, 0.0]]])
    assert keep_decision(drop_all).tolist() == [[0.0, 1.0, 0.0]]
    assert keep_decision(torch.zeros(1, 3, 2)).tolist() == [[1.0, 1.0, 1.0]]


def test_gradient_of_the_codes_reaches_every_part(goldens: Goldens, tokenizer: VisualTokenizer, pixels: Tensor) -> None:
    features = tokenizer.patch_features(pixels[:2])
    noise = torch.from_numpy(exp_noise(goldens.seed, "tokpred", (2, tokenizer.config.patches, 2)))
    keep = tokenizer.select(features, noise)
    assert set(keep.flatten().tolist()) == {0.0, 1.0}
    _, vectors = tokenizer.merge(features, keep)
    loss = (vectors * keep.detach().unsqueeze(-1)).square().sum()
    named = [pair for pair in tokenizer.named_parameters() if not pair[0].startswith("quantizer")]
    gradients = torch.autograd.grad(loss, [parameter for _, parameter in named], allow_unused=True)
    silent = [
        name
        for (name, _), gradient in zip(named, gradients, strict=True)
        if gradient is None or not bool(gradient.any())
    ]
    assert silent == []


def test_cross_attention_with_nothing_dropped_reads_the_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(1, 2, 5, 4, generator=generator) for _ in range(3))
    mixed = policy_attention(query, key, value, torch.zeros(1, 1, 1, 5), POLICY_EPSILON)
    assert_close_absmax(mixed, value.mean(2, keepdim=True).expand_as(mixed), 1e-6)


def test_quantizer_works_in_chunks_and_under_autocast() -> None:
    generator = torch.Generator().manual_seed(3)
    quantizer = Quantizer(64, 8)
    vectors = torch.randn(ROWS_AT_ONCE + 7, 8, generator=generator)
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    expected = torch.cdist(unit.double(), quantizer.embedding.weight.detach().double()).argmin(-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer.encode(vectors), expected)
    assert torch.equal(quantizer.lookup(torch.tensor([-1])), torch.zeros(1, 8))
