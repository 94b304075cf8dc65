"""08: input embeddings, first logits, and what greedy and beam search draw (NOTES.md section 2.13).

``lora_beam4_gs5`` is excluded: the published program did not reorder the cache of the unconditional branch with
its beams, so what it recorded belongs to other beams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pigeon_cli.core.configs import LanguageConfig, SamplingConfig
from pigeon_cli.models.language import build_language_model
from pigeon_cli.models.lora import POLICY, LanguageModel, active_adapter, attach_lora, load_lora, lora_state
from pigeon_cli.pipeline.prompt import embed_prompt
from pigeon_cli.pipeline.sampling import Drawn, Prefix, prefill, sample_codes
from tests.parity.golden import Array, GoldenFile, Goldens, as_array, fill, golden_weight
from tests.parity.test_prompt import adapter

LOGIT_TOLERANCE = 2e-3
ADAPTERS = {"base": None, "lora": POLICY}
"""Which adapter is active under which name of the recording."""
Draw = Callable[[str, int, float], list[Drawn]]
EXCLUDED = {"lora_beam4_gs5": "the published unconditional cache was not reordered with the beams"}


def language_config(goldens: Goldens) -> LanguageConfig:
    """Sizes of the recorded model."""
    size, lora = goldens.size["llama"], goldens.config["lora"]
    return LanguageConfig(
        hidden_size=size["hidden_size"],
        intermediate_size=size["intermediate_size"],
        layers=size["num_hidden_layers"],
        heads=size["num_attention_heads"],
        lora_rank=lora["r"],
        lora_alpha=lora["lora_alpha"],
        lora_dropout=lora["lora_dropout"],
        lora_targets=tuple(lora["target_modules"]),
    )


def load_golden_lora(goldens: Goldens, model: Any, component: str, adapter_name: str) -> None:
    """Fill one adapter from the weight rule, through our own loader."""
    shapes = {key: value.shape for key, value in lora_state(model, adapter_name).items()}
    tensors = {
        key: torch.from_numpy(golden_weight(goldens.seed, f"{component}/{key}", shape)) for key, shape in shapes.items()
    }
    load_lora(model, tensors, adapter_name)


def personalized_model(goldens: Goldens) -> Any:
    """The recorded language model with its stage-1 adapter, in evaluation mode."""
    config = language_config(goldens)
    base = build_language_model(config, goldens.vocabulary)
    fill(base, "llama", goldens.seed)
    model = attach_lora(base, config)
    load_golden_lora(goldens, model, "lora", POLICY)
    return model.eval()


@pytest.fixture(scope="module")
def recorded(goldens: Goldens) -> GoldenFile:
    return goldens.load("08_llama")


@pytest.fixture(scope="module")
def model(goldens: Goldens) -> Any:
    return personalized_model(goldens)


@pytest.fixture(scope="module")
def embeddings(goldens: Goldens, model: LanguageModel) -> Tensor:
    merge = goldens.load("07_merge")
    with torch.no_grad():
        reference = adapter(goldens)(merge.tensor("inf_tgt_embs")).unsqueeze(1)
        return embed_prompt(model.get_input_embeddings(), merge.tensor("inf_input_ids"), reference)


def published_ids(goldens: Goldens, recorded: GoldenFile) -> Tensor:
    """Everything that the published suppression leaves."""
    first, last, count = (int(value) for value in recorded["suppress_tokens_first_last_len"])
    assert count == last - first + 1
    return torch.tensor([token for token in range(goldens.vocabulary.size) if not first <= token <= last])


@pytest.fixture(scope="module")
def image_start(goldens: Goldens, model: Any) -> Prefix:
    """The published unconditional context: the image start alone."""
    row = model.get_input_embeddings()(torch.tensor([[goldens.vocabulary.image_start]]))
    return prefill(model, row, torch.ones(1, 1, dtype=torch.int64))


@pytest.fixture(scope="module")
def prefixes(recorded: GoldenFile, model: Any, embeddings: Tensor) -> dict[str, Prefix]:
    """The recorded prompts as read by the base model and with its adapter; drawing leaves them as they are."""
    found = {}
    for weights, adapter_name in ADAPTERS.items():
        with active_adapter(model, adapter_name):
            found[weights] = prefill(model, embeddings, recorded.tensor("gen_attention_mask"))
    return found


def test_input_embeddings(recorded: GoldenFile, embeddings: Tensor) -> None:
    recorded.check_large(embeddings, "inputs_embeds")
    assert np.abs(embeddings.norm(dim=-1).numpy() - recorded["inputs_embeds_rows_norm"]).max() < 1e-4


@pytest.fixture(scope="module")
def draw(goldens: Goldens, recorded: GoldenFile, model: Any, prefixes: dict[str, Prefix], image_start: Prefix) -> Draw:
    """What ``beams`` and ``guidance`` draw from both recorded prompts with the weights of a name."""

    def rows(weights: str, beams: int, guidance: float) -> list[Drawn]:
        settings = SamplingConfig(
            beams=beams, temperature=0.0, top_k=0, guidance=guidance, minimum_tokens=4, maximum_tokens=20
        )
        with active_adapter(model, ADAPTERS[weights]):
            return sample_codes(
                model,
                prefixes[weights],
                [0, 1],
                settings,
                allowed=published_ids(goldens, recorded),
                image_end=goldens.vocabulary.image_end,
                unconditional=image_start if guidance != 1 else None,
            )

    return rows


def image_logits(goldens: Goldens, logits: Tensor, expected: Array) -> Array:
    """The logits from image start on, as many as were recorded."""
    first = goldens.vocabulary.image_start
    return as_array(logits[..., first : first + expected.shape[-1]])


CASES = [("base", 1, 1.0), ("lora", 1, 1.0), ("lora", 1, 5.0), ("lora", 4, 1.0)]


@pytest.mark.parametrize(("weights", "beams", "guidance"), CASES)
def test_drawn_tokens(
    goldens: Goldens, recorded: GoldenFile, draw: Draw, weights: str, beams: int, guidance: float
) -> None:
    name = f"{weights}_{f'beam{beams}' if beams > 1 else 'greedy'}_gs{guidance:.0f}"
    assert name not in EXCLUDED
    end = [goldens.vocabulary.image_end]
    drawn = [[*row.token_ids, *(end if row.ended else [])] for row in draw(weights, beams, guidance)]
    assert drawn == recorded[f"{name}_seq"][:, 1:].tolist()


@pytest.mark.parametrize("weights", ["base", "lora"])
def test_first_logits(goldens: Goldens, recorded: GoldenFile, prefixes: dict[str, Prefix], weights: str) -> None:
    logits = prefixes[weights].logits
    name = f"{weights}_greedy_gs1_step0"
    recorded.check_large(logits, f"{name}_logits_all_rows", LOGIT_TOLERANCE / 4)
    expected = recorded[f"{name}_logits_image_vocab"]
    assert np.abs(image_logits(goldens, logits, expected) - expected).max() < LOGIT_TOLERANCE
    assert np.abs(logits.logsumexp(1).numpy() - recorded[f"{name}_logsumexp"]).max() < LOGIT_TOLERANCE


def test_unconditional_logits(goldens: Goldens, recorded: GoldenFile, image_start: Prefix) -> None:
    logits = image_start.logits[0]
    recorded.check_large(logits, "uncond_first_logits", LOGIT_TOLERANCE / 4)
    expected = recorded["uncond_first_logits_image_vocab"]
    assert np.abs(image_logits(goldens, logits, expected) - expected).max() < LOGIT_TOLERANCE


def test_beam_scores(recorded: GoldenFile, draw: Draw) -> None:
    """The published score counts the leading image start in the length, 21 instead of 20 tokens."""
    found = np.array([row.log_probability / 21 for row in draw("lora", 4, 1.0)])
    assert np.abs(found - recorded["lora_beam4_gs1_seq_scores"]).max() < LOGIT_TOLERANCE
