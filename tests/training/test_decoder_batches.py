"""What the UNet is told in training: whose history holds what, where pictures come from, and models that know less."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import InputError
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.code_head import CodeHead, load_translation
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.group_histories import draw_histories, whole_histories
from pigeon_cli.training.looked_groups import GROUP, LookedGroups
from pigeon_cli.training.sources import SourceShares
from pigeon_cli.training.tasks.decoder import DecoderTask
from pigeon_cli.weights.checkpoint import load_part
from pigeon_cli.weights.spec_file import spec_text
from pigeon_cli.weights.store import ModelFolder
from tests.tiny_model import write_tiny_model

CPU = torch.device("cpu")
MOST = 5


def test_nobody_is_in_the_history_of_itself_and_strangers_are_of_another_group() -> None:
    torch.manual_seed(0)
    groups = 300
    drawn = draw_histories(groups, MOST, CPU)
    mine = torch.arange(groups * GROUP).unsqueeze(1)
    assert not bool((drawn.rows == mine).any())
    assert torch.equal(drawn.rows // GROUP != mine // GROUP, drawn.strangers)
    of_the_group = torch.where(drawn.strangers, -1 - torch.arange(MOST), drawn.rows)
    assert all(len(set(row)) == MOST for row in of_the_group.tolist())


def test_histories_are_full_short_or_empty_and_most_strangers_are_hidden() -> None:
    torch.manual_seed(0)
    drawn = draw_histories(3000, MOST, CPU)
    known = drawn.seen[~drawn.strangers.any(1)].sum(1)
    shares = [float((known == length).float().mean()) for length in range(MOST + 1)]
    assert shares[0] == pytest.approx(0.06, abs=0.01)
    assert shares[MOST] == pytest.approx(0.94 * (0.55 + 0.45 / MOST), abs=0.02)
    assert float(drawn.strangers.float().mean()) == pytest.approx(0.03, abs=0.005)
    first = drawn.strangers[:, 0]
    assert float(drawn.seen[first, 0].float().mean()) == pytest.approx(0.94 * 0.4, abs=0.05)


def test_one_group_has_no_strangers_and_evaluation_sees_all_the_others() -> None:
    for drawn in (draw_histories(1, MOST, CPU), whole_histories(1, MOST, CPU)):
        assert not bool(drawn.strangers.any())
        assert not bool((drawn.rows == torch.arange(GROUP).unsqueeze(1)).any())
    two = whole_histories(2, MOST, CPU)
    assert bool(two.seen.all())
    assert torch.equal(two.rows // GROUP, torch.arange(2 * GROUP).unsqueeze(1).expand(-1, MOST) // GROUP)


def test_the_mean_is_over_what_is_seen() -> None:
    torch.manual_seed(0)
    drawn = draw_histories(4, MOST, CPU)
    values = torch.randn(4 * GROUP, 2, 3)
    for row, mean in enumerate(drawn.mean(values)):
        seen = values[drawn.rows[row][drawn.seen[row]]]
        assert torch.allclose(mean, seen.mean(0) if len(seen) else torch.zeros(2, 3), atol=1e-6)


def test_groups_are_of_one_set_and_everything_in_them_is_of_train_records(icons: Path) -> None:
    dataset = load_dataset(icons)
    batches = IconBatches(dataset, CPU)
    groups, rng, read = LookedGroups(batches, batches.train, SourceShares(0.1, 0.2, 0.1, 0.25)), random.Random(0), []
    for _ in range(20):
        assert len({record.set for record in groups.choose(rng)}) == 1
    with pytest.MonkeyPatch.context() as patch:
        rgba = batches.rgba
        patch.setattr(batches, "rgba", lambda records: read.extend(records) or rgba(records))
        drawn = groups.draw(rng, 20)
    assert {record.split for record in read} == {"train"}
    assert len(drawn.wanted) == 20 * GROUP
    assert bool(drawn.own.any()) and not bool(drawn.own.all())
    for part in (drawn.sources, drawn.plain):
        assert torch.equal(part[drawn.own], drawn.wanted[drawn.own])


def test_what_is_wanted_does_not_hang_on_what_it_is_drawn_from(icons: Path) -> None:
    batches = IconBatches(load_dataset(icons), CPU)
    both = [
        LookedGroups(batches, batches.valid, shares).draw(random.Random(1), 3)
        for shares in (SourceShares(0.0, 1.0), SourceShares(0.0, 0.0, kin=1.0))
    ]
    assert torch.equal(both[0].wanted, both[1].wanted)
    assert not torch.equal(both[0].sources, both[1].sources)


def task(folder: ModelFolder, icons: Path, checkpoint: Path) -> DecoderTask:
    tokenizer = VisualTokenizer(folder.spec.tokenizer)
    load_part(tokenizer, folder.part("tokenizer"))
    batches = IconBatches(load_dataset(icons), CPU)
    return DecoderTask(folder, batches, tokenizer.requires_grad_(False).eval(), 12, 2, checkpoint)


def without(spec: ModelSpec, *names: str) -> ModelSpec:
    """``spec`` less parts of it, by name."""
    diffusion, unet = spec.diffusion, dict(spec.diffusion.unet)
    if "history" in names:
        diffusion = replace(diffusion, history_pictures=0)
    if "plain" in names:
        diffusion = replace(diffusion, history_plain=False)
    if "reference" in names:
        unet["in_channels"] -= diffusion.reference_channels
        diffusion = replace(diffusion, reference_channels=0, taste_width=0, unet=unet)
    if "taste" in names:
        spec, diffusion = replace(spec, taste=None), replace(diffusion, taste_width=0)
    if "translator" in names:
        spec = replace(spec, translator=None)
    return replace(spec, diffusion=diffusion)


@pytest.mark.parametrize(
    "names", [(), ("plain",), ("history",), ("reference",), ("taste",), ("translator",), ("history", "taste")]
)
def test_models_that_know_less_are_trained_too(names: tuple[str, ...], icons: Path, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    (folder.path / "config.json").write_text(spec_text(without(folder.spec, *names)), encoding="utf-8")
    learner = task(ModelFolder(folder.path), icons, tmp_path / "none.pt")
    torch.manual_seed(0)
    losses = learner.loss(0, random.Random(0))
    losses["loss"].backward()
    assert bool(losses["loss"].isfinite())
    # Twelve pictures are two groups.
    assert len(learner.conditions.draw(learner._pool(0).groups([0, 1])).latents) == 2 * GROUP
    with torch.no_grad():
        figures = learner.evaluate(0, tmp_path)
    assert set(figures) == {"valid_loss", "psnr", "psnr_restyled", "psnr_redrawn"}


def test_reading_each_picture_once_is_reading_every_history_as_generation_does(icons: Path, tmp_path: Path) -> None:
    learner = task(write_tiny_model(tmp_path / "model"), icons, tmp_path / "none.pt")
    torch.manual_seed(0)
    batch = learner.conditions.draw(learner._pool(0))
    condition = learner._condition(batch.codes)
    with torch.no_grad():
        once = learner._attend(condition, batch)
        each = learner.unet.attend(condition.context, condition.pooled, batch.with_history())
    for one, other in zip(once, each, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_the_head_comes_from_the_run_of_the_translator(tiny: ModelFolder, tmp_path: Path) -> None:
    tokenizer, file = VisualTokenizer(tiny.spec.tokenizer), tmp_path / "checkpoint.pt"
    assert load_translation(tiny, tokenizer.quantizer, file, CPU) is None
    assert tiny.spec.translator is not None
    codebook = tokenizer.quantizer.embedding.weight.detach()[: tiny.spec.tokenizer.patch_codes]
    head = CodeHead(codebook, tiny.spec.translator.width)
    torch.save({"modules": {"head": head.state_dict()}}, file)
    found = load_translation(tiny, tokenizer.quantizer, file, CPU)
    assert found is not None and torch.equal(found.head.residual, head.residual)
    codes = torch.randint(0, 40, (2, tiny.spec.tokenizer.patches))
    style = torch.randn(2, tiny.spec.tokenizer.style_tokens, tiny.spec.tokenizer.code_width)
    keep, one = torch.ones(2, tiny.spec.tokenizer.patches), torch.ones(2, 1)
    coldest = found.draw(codes, keep, style, torch.full((2, 1, 1), 1e-6), one)
    assert torch.equal(coldest, found.likeliest(codes, keep, style))
    torch.save({"modules": {}}, file)
    with pytest.raises(InputError, match="no head"):
        load_translation(tiny, tokenizer.quantizer, file, CPU)
