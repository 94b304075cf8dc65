"""Attention written out gives what the fused one gives."""

from __future__ import annotations

import torch

from pigeon_cli.models.language import build_language_model
from pigeon_cli.training.attention import explicit_attention
from tests.tiny_model import tiny_spec


def test_explicit_attention_changes_neither_results_nor_gradients_of_right_padded_sequences() -> None:
    spec = tiny_spec(300)
    torch.manual_seed(0)
    model = build_language_model(spec.language, spec.vocabulary)
    embedded = torch.randn(2, 9, spec.language.hidden_size, requires_grad=True)
    arguments = {
        "attention_mask": torch.ones(2, 9, dtype=torch.long),
        "position_ids": torch.arange(9).expand(2, -1) * 8,
    }
    fused = model.model(inputs_embeds=embedded, use_cache=False, **arguments).last_hidden_state
    (wanted,) = torch.autograd.grad(fused.square().sum(), embedded)
    with explicit_attention(model):
        written_out = model.model(inputs_embeds=embedded, use_cache=False, **arguments).last_hidden_state
        (found,) = torch.autograd.grad(written_out.square().sum(), embedded)
    assert torch.allclose(fused, written_out, atol=1e-5)
    assert torch.allclose(wanted, found, atol=1e-4)
    after = model.model(inputs_embeds=embedded, use_cache=False, **arguments).last_hidden_state
    assert torch.equal(fused, after)
