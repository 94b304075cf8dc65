"""What a reference's places become: told by all of them and by the style of the history, by nothing that is hidden."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pigeon_cli.models.adapter import Adapter
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.quantizer import Quantizer
from pigeon_cli.models.translator import Translator
from pigeon_cli.pipeline.mask import lay_out
from pigeon_cli.pipeline.reference import ReferenceReader
from pigeon_cli.training.loop import optimizers_of
from pigeon_cli.training.sequences import mean_style
from tests.tiny_model import STYLE_TOKENS, tiny_spec

SPEC = tiny_spec(300)
WIDTH = SPEC.tokenizer.code_width


def translator() -> Translator:
    torch.manual_seed(0)
    assert SPEC.translator is not None
    return Translator(SPEC.translator).eval()


def request() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(1, 16, WIDTH), torch.ones(1, 16), torch.randn(1, STYLE_TOKENS, WIDTH)


@torch.no_grad()
def test_every_place_is_told_by_every_other_and_by_the_style() -> None:
    made, (vectors, keep, style) = translator(), request()
    whole = made(vectors, keep, style)
    assert whole.shape == (1, 16, made.config.width)
    changed = vectors.clone()
    changed[0, 3] += 1
    assert ((made(changed, keep, style) - whole).abs().amax(-1) > 1e-5).all()
    assert ((made(vectors, keep, style + 1) - whole).abs().amax(-1) > 1e-4).all()


@torch.no_grad()
def test_hidden_patches_and_patches_that_are_not_there_say_nothing() -> None:
    made, (vectors, keep, style) = translator(), request()
    keep[0, 12:] = 0
    changed = vectors.clone()
    changed[0, 12:] = 5
    told = made(vectors, keep, style)
    torch.testing.assert_close(made(changed, keep, style), told)
    torch.testing.assert_close(made(vectors[:, :12], keep[:, :12], style), told)


def test_the_keep_decision_has_a_gradient() -> None:
    made, (vectors, keep, style) = translator(), request()
    keep[0, 5] = 0
    keep.requires_grad_()
    made(vectors, keep, style).square().sum().backward()
    assert keep.grad is not None and bool((keep.grad != 0).all())


@torch.no_grad()
def test_two_passes_are_twice_the_blocks() -> None:
    made, told = translator(), request()
    assert made.config.passes == 2 and len(made.blocks) == 1
    deep = Translator(replace(made.config, depth=2, passes=1)).eval()
    state = made.state_dict()
    again = {name.replace("blocks.0", "blocks.1"): tensor for name, tensor in state.items() if "blocks." in name}
    deep.load_state_dict(state | again)
    torch.testing.assert_close(deep(*told), made(*told))


@torch.no_grad()
def test_the_style_is_the_mean_of_what_is_kept_of_the_history() -> None:
    torch.manual_seed(2)
    quantizer = Quantizer(SPEC.tokenizer.code_count, WIDTH)
    decoder, adapter = EmbeddingDecoder(SPEC.decoder).eval(), Adapter(SPEC.adapter).eval()
    reader = ReferenceReader(SPEC, quantizer, decoder, adapter, translator())
    first, reference = SPEC.vocabulary.first_code, [3] * (STYLE_TOKENS + 16)
    liked = [[50 + image] * STYLE_TOKENS + [image] * 16 for image in range(3)]
    layout = lay_out(
        [[[code + first for code in codes] for codes in liked]], [[code + first for code in reference]], pad=2
    )
    codebook = quantizer.embedding.weight.detach().numpy()

    def seen(keep: Tensor) -> Tensor:
        echo = reader.see_masked(layout, keep).echo
        assert echo is not None
        return echo

    def told(history: list[list[int]]) -> Tensor:
        codes = torch.tensor([reference])
        style = torch.from_numpy(mean_style(history, codebook, STYLE_TOKENS)).unsqueeze(0)
        echo = reader.see(codes, codes >= 0, torch.ones(codes.shape), style).echo
        assert echo is not None
        return echo

    keep = torch.ones(layout.ids.shape)
    torch.testing.assert_close(seen(keep), told(liked))
    assert not seen(keep)[:, :STYLE_TOKENS].any()
    # The first image's style tokens are dropped: the other two are all there is.
    keep[0, :STYLE_TOKENS] = 0
    torch.testing.assert_close(seen(keep), told(liked[1:]))


def test_muon_takes_the_groups_that_ask_for_it() -> None:
    matrix, vector = torch.nn.Parameter(torch.ones(4, 4)), torch.nn.Parameter(torch.ones(4))
    groups = [{"params": [vector], "lr": 0.1}, {"params": [matrix], "lr": 0.1, "weight_decay": 0.0, "muon": True}]
    first, second = optimizers_of(groups)
    assert isinstance(first, torch.optim.AdamW) and isinstance(second, torch.optim.Muon)
    (matrix.square().sum() + vector.sum()).backward()
    for optimizer in (first, second):
        optimizer.step()
    assert (matrix < 1).any() and (vector < 1).all()
    assert len(optimizers_of(groups[:1])) == 1
