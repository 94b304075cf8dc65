"""06: scores, probabilities and keep decisions of the mask generator (NOTES.md section 3)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pigeon_cli.core.configs import MaskGeneratorConfig
from pigeon_cli.models.mask_generator import HISTORY, REFERENCE, MaskDecision, MaskGenerator, decide
from tests.parity.golden import GoldenFile, Goldens, assert_close_absmax, exp_noise, fill, golden_weight


def published_keep_count(count: int, alpha: str) -> int:
    """The recorded program's count: truncation of a binary product."""
    return max(1, int(count * (1 - float(alpha))))


def embedding_table(goldens: Goldens) -> Tensor:
    """The language model's table under the weight rule."""
    shape = (goldens.vocabulary.size, goldens.size["llama"]["hidden_size"])
    return torch.from_numpy(golden_weight(goldens.seed, "llama/model.embed_tokens.weight", shape))


def mask_generator(goldens: Goldens) -> MaskGenerator:
    """The recorded mask generator, in evaluation mode."""
    size = goldens.size
    config = MaskGeneratorConfig(
        width=size["llama"]["hidden_size"], heads=size["mask"]["num_heads"], layers=size["mask"]["num_layers"]
    )
    generator = MaskGenerator(config).eval()
    fill(generator, "mask", goldens.seed)
    return generator


def mask_scores(goldens: Goldens) -> Tensor:
    """Scores [B, L] of the recorded ids; table and generator, 1.2 GB at true width, are let go."""
    mask = goldens.load("06_mask")
    ids, positions, types = (mask.tensor(name) for name in ("input_ids", "position_ids", "type_ids"))
    with torch.no_grad():
        scores: Tensor = mask_generator(goldens)(embedding_table(goldens)[ids], positions, types)
    return scores


def recorded_noise(goldens: Goldens, types: Tensor, tag: str) -> Tensor:
    """Gumbel draws in the recorded order: the history of every sample, then the target of every sample."""
    noise = torch.zeros(types.shape)
    for place, kind in enumerate((HISTORY, REFERENCE)):
        for row in range(types.shape[0]):
            member = types[row] == kind
            draws = exp_noise(goldens.seed, f"{tag}/{place * types.shape[0] + row}", int(member.sum()))
            noise[row, member] = -torch.log(torch.from_numpy(draws))
    return noise


@pytest.fixture(scope="module")
def recorded(goldens: Goldens) -> GoldenFile:
    return goldens.load("06_mask")


@pytest.fixture(scope="module")
def embeddings(goldens: Goldens, recorded: GoldenFile) -> Tensor:
    """Rows of the table, [B, L, W]; the table itself, 0.8 GB at true width, is let go."""
    return embedding_table(goldens)[recorded.tensor("input_ids")]


@pytest.fixture(scope="module")
def generator(goldens: Goldens) -> MaskGenerator:
    return mask_generator(goldens)


@pytest.fixture(scope="module")
def scores(recorded: GoldenFile, embeddings: Tensor, generator: MaskGenerator) -> Tensor:
    with torch.no_grad():
        result: Tensor = generator(embeddings, recorded.tensor("position_ids"), recorded.tensor("type_ids"))
    return result


def real(recorded: GoldenFile) -> Tensor:
    """Columns that are no padding; the recorded program multiplied the others by zero."""
    return recorded.tensor("attention_mask_true_is_pad") == 0


def test_sinusoid_table(recorded: GoldenFile, generator: MaskGenerator) -> None:
    recorded.check_large(generator.position_embedding.pe[[0, 5, 256]], "pe_row0_5_256")


def test_hidden_vectors(recorded: GoldenFile, embeddings: Tensor, generator: MaskGenerator) -> None:
    positions, types = recorded.tensor("position_ids"), recorded.tensor("type_ids")
    with torch.no_grad():
        recorded.check_large(generator.entrance(embeddings, positions, types), "input_embeds")
        hidden = generator.hidden(embeddings, positions, types)
    recorded.check_large(hidden * real(recorded).unsqueeze(-1), "output_embeds")


@pytest.mark.parametrize("mode", ["inf", "train"])
def test_scores_and_probabilities(recorded: GoldenFile, scores: Tensor, mode: str) -> None:
    """Padded columns are left out: their recorded scores are leftovers of the fused attention path."""
    inside = real(recorded)
    assert_close_absmax(scores[inside], recorded.tensor(f"cos_sim_{mode}")[inside])
    decision = decide(scores, recorded.tensor("type_ids"), 0.5, 0.5)
    for kind, name in ((HISTORY, "hist_prob"), (REFERENCE, "tgt_softmax")):
        member = recorded.tensor("type_ids") == kind
        assert_close_absmax(decision.probability * member, recorded[f"{name}_{mode}"])


def published_decision(
    goldens: Goldens, recorded: GoldenFile, scores: Tensor, mode: str, ratio: str, noisy: bool
) -> MaskDecision:
    types = recorded.tensor("type_ids")
    tag = f"mask/{ratio}/{int(mode == 'inf')}"
    return decide(
        scores,
        types,
        float(ratio),
        float(ratio),
        invert_reference=mode == "train",
        noise=recorded_noise(goldens, types, tag) if noisy else None,
        count=published_keep_count,
    )


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("ratio", ["0.0", "0.2", "0.5", "1.0"])
@pytest.mark.parametrize("mode", ["inf", "train"])
def test_keep_decisions(
    goldens: Goldens, recorded: GoldenFile, scores: Tensor, mode: str, ratio: str, noisy: bool
) -> None:
    decision = published_decision(goldens, recorded, scores, mode, ratio, noisy)
    name = f"{mode}_r{ratio}_{'noise' if noisy else 'nonoise'}"
    inside = real(recorded)
    kept = decision.keep.bool()
    assert torch.equal(kept[inside], recorded.tensor(f"{name}_keep").bool()[inside])
    ids, types = recorded.tensor("input_ids"), recorded.tensor("type_ids")
    for row in range(2):
        assert int(kept[row][types[row] == HISTORY].sum()) == recorded[f"{name}_n_keep_hist"][row]
        reference = types[row] == REFERENCE
        assert int(kept[row][reference].sum()) == recorded[f"{name}_n_keep_tgt"][row]
        masked = torch.where(kept[row], ids[row], torch.full_like(ids[row], -1))[reference]
        assert np.array_equal(masked.numpy(), recorded[f"{name}_masked_tgt{row}"])


def test_kept_values_are_exactly_one(goldens: Goldens, recorded: GoldenFile, scores: Tensor) -> None:
    decision = published_decision(goldens, recorded, scores, "inf", "0.5", True)
    assert set(decision.keep.unique().tolist()) == {0.0, 1.0}
    assert float(recorded["keep_dev_from_one_max"]) == 0.0
