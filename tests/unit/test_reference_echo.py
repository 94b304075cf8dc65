"""The reference's places, added to the tokens from which the answer is predicted."""

from __future__ import annotations

from dataclasses import replace

import torch

from pigeon_cli.core.configs import SamplingConfig
from pigeon_cli.models.language import build_language_model
from pigeon_cli.pipeline.prompt import REFERENCE_SLOT
from pigeon_cli.pipeline.reference import SeenReference, echo_reference, embed_request
from pigeon_cli.pipeline.sampling import allowed_ids, join_prefixes, prefill, sample_codes
from tests.tiny_model import tiny_spec

SPEC = replace(tiny_spec(300), reference_slots=1)
START, END, CODE = SPEC.vocabulary.image_start, SPEC.vocabulary.image_end, SPEC.vocabulary.first_code
SLOT = REFERENCE_SLOT


def test_only_pictures_that_are_asked_for_by_a_reference_take_it_place_by_place() -> None:
    ids = torch.tensor(
        [
            [START, CODE, CODE, END, SLOT, SLOT, START, CODE, CODE, CODE, END, 2],
            [5, SLOT, SLOT, START, CODE, END, SLOT, SLOT, START, CODE, END, 2],
        ]
    )
    echo = torch.arange(1, 4).view(3, 1, 1) * 100 + torch.arange(1, 3).view(1, 2, 1)
    added = echo_reference(torch.zeros(2, 12, 1), ids, echo.float(), SPEC.vocabulary)[..., 0]
    assert added.tolist() == [
        [0, 0, 0, 0, 0, 0, 101, 102, 0, 0, 0, 0],
        [0, 0, 0, 201, 202, 0, 0, 0, 301, 302, 0, 0],
    ]


def test_drawing_step_by_step_reads_what_one_pass_reads() -> None:
    torch.manual_seed(0)
    model = build_language_model(SPEC.language, SPEC.vocabulary).eval()
    ids = torch.tensor([[START, CODE + 3, END, 7, SLOT, START]] * 2)
    reference = SeenReference(*(torch.randn(2, count, SPEC.language.hidden_size) for count in (1, 16)))
    read = embed_request(model.get_input_embeddings(), ids, reference, SPEC)
    settings = SamplingConfig(1, 0.0, 0, 1.0, 6, 6)
    prefix = prefill(model, read.embedded, torch.ones_like(ids), coming=read.coming)
    drawn = sample_codes(model, prefix, [1, 0], settings, allowed=allowed_ids(SPEC.vocabulary), image_end=END)
    for row, one in zip((1, 0), drawn, strict=True):
        whole = torch.tensor([[*ids[row].tolist(), *one.token_ids]])
        assert reference.echo is not None
        own = SeenReference(reference.slots[row : row + 1], reference.echo[row : row + 1])
        echoed = embed_request(model.get_input_embeddings(), whole, own, SPEC).embedded
        logits = model(inputs_embeds=echoed).logits[0, ids.shape[1] - 1 : -1, CODE:]
        assert (logits.argmax(1) + CODE).tolist() == list(one.token_ids)
    assert drawn[0].token_ids != drawn[1].token_ids


def test_nothing_comes_for_the_unconditional_rows() -> None:
    model = build_language_model(SPEC.language, SPEC.vocabulary).eval()
    ids = torch.tensor([[START, CODE]])
    embedded, coming = model.get_input_embeddings()(ids), torch.ones(1, 3, SPEC.language.hidden_size)
    joined = join_prefixes(
        prefill(model, embedded, torch.ones_like(ids), coming=coming), prefill(model, embedded, torch.ones_like(ids))
    )
    assert joined.coming is not None
    assert joined.coming.mean(dim=(1, 2)).tolist() == [1.0, 0.0]


def test_a_row_without_slots_leaves_its_reference_aside() -> None:
    torch.manual_seed(0)
    table = build_language_model(SPEC.language, SPEC.vocabulary).get_input_embeddings()
    ids = torch.tensor([[2, 2, START, CODE, END], [7, SLOT, START, CODE + 1, END]])
    reference = SeenReference(*(torch.randn(2, count, SPEC.language.hidden_size) for count in (1, 16)))
    assert reference.echo is not None
    embedded = embed_request(table, ids, reference, SPEC).embedded
    assert torch.equal(embedded[0], table(ids[0]))
    torch.testing.assert_close(embedded[1, 2:4], table(ids[1, 2:4]) + reference.echo[1, :2])
