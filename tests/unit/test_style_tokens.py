"""Style tokens: read beside the patches, coded by rows of their own, and what they change in the decoder."""

from __future__ import annotations

from dataclasses import replace

import torch

from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.pipeline.tokenize import drawn_tokens, kept_tokens
from tests.tiny_model import STYLE_TOKENS, tiny_spec

SPEC = tiny_spec(300)
CONFIG = SPEC.tokenizer


def tokenizer() -> VisualTokenizer:
    torch.manual_seed(0)
    return VisualTokenizer(CONFIG).eval()


def decoder() -> EmbeddingDecoder:
    """With style layers that are no longer zero."""
    torch.manual_seed(1)
    made = EmbeddingDecoder(SPEC.decoder).eval()
    for last in (made.style.recolours, made.style.changes):
        torch.nn.init.normal_(last.weight, std=0.2)
    return made


@torch.no_grad()
def test_style_tokens_stand_first_and_have_codes_of_their_own() -> None:
    found = tokenizer().encode(torch.randn(3, 3, CONFIG.image_size, CONFIG.image_size))
    assert found.codes.shape == (3, CONFIG.tokens)
    style, patches = found.codes[:, :STYLE_TOKENS], found.codes[:, STYLE_TOKENS:]
    assert (style >= CONFIG.patch_codes).all() and (style < CONFIG.code_count).all()
    assert (patches < CONFIG.patch_codes).all()
    assert found.keep[:, :STYLE_TOKENS].all()


@torch.no_grad()
def test_the_patch_of_a_style_token_is_minus_one() -> None:
    made = tokenizer()
    (read,) = kept_tokens(made.encode(torch.randn(1, 3, CONFIG.image_size, CONFIG.image_size)), STYLE_TOKENS)
    assert read.patches[:STYLE_TOKENS] == (-1,) * STYLE_TOKENS
    assert all(patch >= 0 for patch in read.patches[STYLE_TOKENS:])
    drawn = drawn_tokens(made.quantizer, [60, 61, 5, 6], STYLE_TOKENS)
    assert drawn.patches == (-1, -1, 0, 1)


@torch.no_grad()
def test_another_style_changes_the_whole_picture_and_a_hidden_one_says_nothing() -> None:
    made, count = decoder(), CONFIG.tokens
    vectors, mask = torch.randn(1, count, SPEC.decoder.code_width), torch.ones(1, count, dtype=torch.bool)
    other = vectors.clone()
    other[:, :STYLE_TOKENS] = torch.randn(1, STYLE_TOKENS, SPEC.decoder.code_width)
    assert ((made(vectors, mask).context - made(other, mask).context).abs().amax(-1) > 1e-3).all()
    hidden = mask.clone()
    hidden[:, :STYLE_TOKENS] = False
    torch.testing.assert_close(made(vectors, hidden).context, made(other, hidden).context)
    kept = hidden.float()
    torch.testing.assert_close(made(vectors, mask, kept).context, made(other, mask, kept).context)


@torch.no_grad()
def test_a_new_decoder_draws_alike_in_every_style() -> None:
    torch.manual_seed(2)
    made = EmbeddingDecoder(SPEC.decoder).eval()
    plain = EmbeddingDecoder(replace(SPEC.decoder, style_tokens=0)).eval()
    plain.load_state_dict({name: tensor for name, tensor in made.state_dict().items() if not name.startswith("style.")})
    vectors = torch.randn(1, CONFIG.tokens, SPEC.decoder.code_width)
    mask = torch.ones(1, CONFIG.tokens, dtype=torch.bool)
    found, wanted = made(vectors, mask).context, plain(vectors[:, STYLE_TOKENS:], mask[:, STYLE_TOKENS:]).context
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
