"""07: prompt text, its ids, and the merge with image codes (NOTES.md sections 2.6 to 2.12)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from torch import Tensor

from pigeon_cli.core.configs import AdapterConfig, EmbeddingDecoderConfig
from pigeon_cli.core.vocabulary import RELEASED_VOCABULARY
from pigeon_cli.models.adapter import Adapter, reference_vectors
from pigeon_cli.models.embedding_decoder import DecodedCondition, EmbeddingDecoder
from pigeon_cli.models.mask_generator import HISTORY, PAD, REFERENCE, MaskDecision, decide
from pigeon_cli.pipeline.prompt import (
    PromptBatch,
    encode_prompt_text,
    hide_dropped,
    merge_prompt,
    pad_prompts,
    prompt_template,
    render,
)
from tests.parity.golden import MINI_ONLY, TOKENIZER, Goldens, assert_close_absmax, fill, golden_weight
from tests.parity.test_mask import mask_scores, published_keep_count, recorded_noise


@pytest.fixture(scope="module")
def prompts(goldens: Goldens) -> Any:
    return goldens.load_shared_json("07_prompts_tf4.33.2")


@pytest.fixture(scope="module")
def processor() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER / "tokenizer.model"))


def unpadded(row: list[int]) -> list[int]:
    """Without the padding on the left."""
    start = next(place for place, token in enumerate(row) if token != RELEASED_VOCABULARY.pad)
    return row[start:]


@MINI_ONLY
@pytest.mark.parametrize(("kind", "key"), [("sticker", "token_ids"), ("movie", "movie_token_ids")])
def test_ids_of_recorded_texts(
    prompts: Any, processor: sentencepiece.SentencePieceProcessor, kind: str, key: str
) -> None:
    for text, ids in zip(prompts[kind], prompts[key], strict=True):
        assert encode_prompt_text(processor, text, RELEASED_VOCABULARY) == unpadded(ids)


def title(prompts: Any, image: int) -> str:
    """A recorded title without its year, as the recorded prompts show it."""
    return re.sub(r"\s*\(\d{4}\)\s*$", "", prompts["titles"][str(image)])


@MINI_ONLY
def test_wording_of_the_data_files(prompts: Any) -> None:
    for row, images in enumerate(prompts["seqs"]):
        words = prompts["semantics"][images[-1]]
        history = [{"title": title(prompts, image)} for image in images[:-1]]
        sticker = {"history": history, "emotion": prompts["emo"][str(images[-1])], "words": words}
        poster = {"history": history, "title": title(prompts, images[-1]), "words": words}
        assert render(prompt_template("sticker"), sticker) == prompts["sticker"][row]
        assert render(prompt_template("poster"), poster) == prompts["movie"][row]


def image_codes(goldens: Goldens) -> list[list[int]]:
    """Token ids of the codes of every image, read off the recorded merge without a mask's holes."""
    mask = goldens.load("06_mask")
    ids, types, positions = (mask.tensor(name) for name in ("input_ids", "type_ids", "position_ids"))
    images: dict[int, list[int]] = {}
    for row, order in enumerate(((0, 1, 2, 3, 4, 5), (6, 7, 3, 1, 0, 2))):
        starts = (positions[row] == 1) & (types[row] != PAD)
        number = starts.long().cumsum(0) - 1
        for place, image in enumerate(order):
            member = (number == place) & (types[row] != PAD)
            images[image] = [int(token) for token in ids[row][member] if goldens.vocabulary.is_code(int(token))]
    return [images[image] for image in sorted(images)]


@pytest.fixture(scope="module")
def decisions(goldens: Goldens) -> dict[str, MaskDecision]:
    """The decisions behind the recorded merges: history .2, target .5, all target ids scorable."""
    scores, types = mask_scores(goldens), goldens.load("06_mask").tensor("type_ids")
    return {
        mode: decide(
            scores,
            types,
            0.2,
            0.5,
            invert_reference=mode == "train",
            noise=recorded_noise(goldens, types, f"pipe/{mode}"),
            count=published_keep_count,
        )
        for mode in ("inf", "train")
    }


def merged(goldens: Goldens, prompts: Any, *, response: bool = False, with_markers: bool = False) -> PromptBatch:
    codes = image_codes(goldens)
    rows = [
        merge_prompt(
            unpadded(prompts["token_ids"][row]),
            [codes[image] for image in images[:-1]],
            goldens.vocabulary,
            response=codes[images[-1]] if response else None,
            with_markers=with_markers,
        )
        for row, images in enumerate(prompts["seqs"])
    ]
    return pad_prompts(rows, goldens.vocabulary)


def test_merge_for_inference(goldens: Goldens, prompts: Any, decisions: dict[str, MaskDecision]) -> None:
    recorded = goldens.load("07_merge")
    batch = merged(goldens, prompts)
    assert torch.equal(hide_dropped(batch, decisions["inf"].keep), recorded.tensor("inf_input_ids"))
    assert torch.equal(batch.attention, recorded.tensor("inf_attn"))


def test_merge_for_training(goldens: Goldens, prompts: Any, decisions: dict[str, MaskDecision]) -> None:
    recorded = goldens.load("07_merge")
    batch = merged(goldens, prompts, response=True)
    assert torch.equal(hide_dropped(batch, decisions["train"].keep), recorded.tensor("train_input_ids"))
    assert torch.equal(batch.attention, recorded.tensor("train_attn"))
    assert torch.equal(batch.labels, recorded.tensor("train_labels"))


def test_merge_with_markers(goldens: Goldens, prompts: Any) -> None:
    """The mask's draws differ (``pipe/sp``), so holes are read off the recorded ids and only places compared."""
    recorded = goldens.load("07_merge")
    batch = merged(goldens, prompts, with_markers=True)
    expected = recorded.tensor("inf_add_special_input_ids")
    assert torch.equal(batch.ids.masked_fill(expected == -1, -1), expected)
    assert torch.equal(batch.attention, recorded.tensor("inf_add_special_attn"))
    assert bool((batch.sources[expected == -1] >= 0).all())


def test_text_ids_are_those_of_the_batch(goldens: Goldens, prompts: Any) -> None:
    recorded = goldens.load("07_merge")
    assert np.array_equal(np.array(prompts["token_ids"]), recorded["text_input_ids"])
    assert np.array_equal(np.array(prompts["attn"]), recorded["text_attn_mask"])


def adapter(goldens: Goldens) -> Adapter:
    """The recorded adapter, in evaluation mode."""
    module = Adapter(AdapterConfig(*goldens.size["adapter"])).eval()
    fill(module, "adapter", goldens.seed)
    return module


@pytest.mark.parametrize("mode", ["inf", "train"])
def test_adapter(goldens: Goldens, mode: str) -> None:
    recorded = goldens.load("07_merge")
    with torch.no_grad():
        found = adapter(goldens)(recorded.tensor(f"{mode}_tgt_embs"))
    assert_close_absmax(found, recorded[f"{mode}_adapter_out"])


def kept_reference_codes(goldens: Goldens, decision: MaskDecision) -> list[Tensor]:
    """Surviving reference tokens as codes; start and end, which the published mask scores, fall away."""
    mask = goldens.load("06_mask")
    ids, types = mask.tensor("input_ids"), mask.tensor("type_ids")
    rows = []
    for row in range(ids.shape[0]):
        kept = ids[row][(types[row] == REFERENCE) & decision.keep[row].bool()]
        rows.append(kept[kept >= goldens.vocabulary.first_code] - goldens.vocabulary.first_code)
    return rows


def embedding_decoder(goldens: Goldens) -> EmbeddingDecoder:
    """The recorded decoder of the high-resolution generator."""
    size = goldens.size["dec"]
    config = EmbeddingDecoderConfig(
        code_width=size["in_chans"],
        width=size["embed_dim"],
        depth=size["depth"],
        heads=size["num_heads"],
        queries=(size["img_size"] // size["patch_size"]) ** 2,
        mlp_ratio=size["mlp_ratio"],
    )
    decoder = EmbeddingDecoder(config, output_width=1408).eval()
    fill(decoder, "hires", goldens.seed)
    return decoder


def decode_rows(goldens: Goldens, decoder: EmbeddingDecoder, rows: list[Tensor]) -> DecodedCondition:
    """Condition of ragged code rows, padded on the right."""
    size = goldens.size["tok"]
    shape = (size["n_code"], size["code_dim"])
    codebook = torch.from_numpy(golden_weight(goldens.seed, "tok/quantize.embedding.weight", shape))
    codes = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).bool()
    with torch.no_grad():
        condition: DecodedCondition = decoder(codebook[codes], mask)
    return condition


@pytest.fixture(scope="module")
def decoder(goldens: Goldens) -> EmbeddingDecoder:
    return embedding_decoder(goldens)


@pytest.mark.parametrize("mode", ["inf", "train"])
def test_reference_vector_of_kept_codes(
    goldens: Goldens, decoder: EmbeddingDecoder, decisions: dict[str, MaskDecision], mode: str
) -> None:
    recorded = goldens.load("07_merge")
    condition = decode_rows(goldens, decoder, kept_reference_codes(goldens, decisions[mode]))
    assert_close_absmax(reference_vectors(condition.context, 1)[:, 0], recorded[f"{mode}_tgt_embs"])


def test_reference_vector_without_a_mask(goldens: Goldens, decoder: EmbeddingDecoder, prompts: Any) -> None:
    codes = image_codes(goldens)
    rows = [torch.tensor(codes[images[-1]]) - goldens.vocabulary.first_code for images in prompts["seqs"]]
    condition = decode_rows(goldens, decoder, rows)
    found = reference_vectors(condition.context, 1)[:, 0]
    assert_close_absmax(found, goldens.load("07_merge")["inf_nomask_tgt_embs"])


def test_history_columns_come_first(goldens: Goldens) -> None:
    """The layout that ``sources`` counts: history codes from column 0 on."""
    types = goldens.load("06_mask").tensor("type_ids")
    for row in range(types.shape[0]):
        count = int((types[row] == HISTORY).sum())
        assert bool((types[row][:count] == HISTORY).all())


def test_reference_vector_is_the_mean() -> None:
    context = torch.arange(24.0).reshape(1, 4, 6)
    assert torch.equal(reference_vectors(context, 1)[:, 0], context.mean(1))
