"""First weights of the tokenizer stage: components in, places kept, pixels out."""

from __future__ import annotations

import torch
from torch import nn

from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.tokenizer_start import (
    fit_pixels,
    patches_of,
    principal_components,
    start_decoder,
    start_encoder,
)
from tests.tiny_model import tiny_spec

SPEC = tiny_spec(300)


def pictures(count: int) -> torch.Tensor:
    """Smooth random pictures: a few numbers say most of a patch."""
    torch.manual_seed(0)
    side = SPEC.tokenizer.image_size
    return nn.functional.interpolate(torch.randn(count, 3, 4, 4), (side, side), mode="bicubic")


@torch.no_grad()
def test_task_vectors_are_principal_components_over_a_constant() -> None:
    images = pictures(64)
    tokenizer = VisualTokenizer(SPEC.tokenizer)
    start_encoder(tokenizer, images)
    features = tokenizer.patch_features(images)
    _, vectors = tokenizer.merge(features, torch.ones(features.shape[:2]))
    found = vectors.flatten(0, 1)
    found = found[:, :-1] / found[:, -1:]
    rows = patches_of(images, SPEC.tokenizer.patch_size)
    mean, components = principal_components(rows, SPEC.tokenizer.code_width - 1)
    wanted = (rows - mean) @ components.T
    for column in range(wanted.shape[1]):
        both = torch.corrcoef(torch.stack([found[:, column], wanted[:, column]]))
        assert abs(both[0, 1]) > 0.95, column


@torch.no_grad()
def test_a_query_reads_its_own_code_and_hardly_another() -> None:
    torch.manual_seed(0)
    decoder = EmbeddingDecoder(SPEC.decoder).eval()
    start_decoder(decoder)
    count, style = SPEC.decoder.queries, SPEC.decoder.style_tokens
    codes = torch.randn(1, style + count, SPEC.decoder.code_width)
    mask = torch.ones(1, style + count, dtype=torch.bool)
    changed = codes.clone()
    changed[0, style + 3] = torch.randn(SPEC.decoder.code_width)
    moved = (decoder(changed, mask).context - decoder(codes, mask).context)[0].norm(dim=-1)
    assert moved.argmax() == 3
    assert moved[3] > 3 * moved[torch.arange(count) != 3].max()


@torch.no_grad()
def test_pixels_are_fitted_by_least_squares() -> None:
    torch.manual_seed(0)
    context, wanted = torch.randn(500, 8), nn.Linear(8, 12)
    layer = nn.Linear(8, 12)
    fit_pixels(layer, context, wanted(context))
    assert torch.allclose(layer(context), wanted(context), atol=2e-3)
