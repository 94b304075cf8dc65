"""What another set makes of the same lines, learned from pairs."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from pigeon_cli.core.errors import InputError
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.dataset import IconDataset, load_dataset
from pigeon_cli.training.data.sets import HANDS
from pigeon_cli.training.finishes import Finisher, Finishes, FinishNetwork, load_finisher, sibling_pairs
from pigeon_cli.training.loop import LoopSettings, run_training
from pigeon_cli.training.tasks.finish import FinishTask
from tests.training.test_memory import record, with_siblings

CPU = choose_device("cpu")
SIBLINGS = ("emojione", "emojione-monotone")


@pytest.fixture
def inverted(icons: Path) -> IconBatches:
    """Two sets that draw the same lines, the second in inverted colours."""
    dataset = with_siblings(load_dataset(icons))
    images = np.array(dataset.images)
    for one in dataset.records:
        if one.set == SIBLINGS[1]:
            images[one.id, :, :, :3] = 255 - images[one.id, :, :, :3]
    return IconBatches(IconDataset(images, dataset.records), CPU.device)


def test_at_first_nothing_changes() -> None:
    pictures = torch.rand(2, 3, 32, 32)
    assert torch.equal(FinishNetwork()(pictures, torch.tensor([0, 3])), pictures)


def test_pairs_are_of_one_thing_by_two_siblings() -> None:
    flat, soft = HANDS.index("fluent-emoji-flat"), HANDS.index("fluent-emoji")
    twemoji = HANDS.index("twemoji")
    kin = torch.full((len(HANDS), len(HANDS)), 0.9)
    sources = [record(0, "fox", flat), record(1, "cat", flat), record(2, "fox", twemoji)]
    wanted = [record(3, "fox", soft), record(4, "dog", soft)]
    assert sibling_pairs(sources, wanted, kin) == [(sources[0], wanted[0])]
    kin[soft, flat] = 0.5
    assert sibling_pairs(sources, wanted, kin) == []


def test_a_finish_is_learned_and_read_from_its_run(inverted: IconBatches, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = FinishTask(inverted, 8)
    # Colours are not told from ink.
    assert list(task.pairs) == [SIBLINGS[1]]
    settings = LoopSettings(tmp_path / "finish", 60, 8, 3e-3, warmup=5, evaluate_every=60)
    figures = run_training(task, settings, CPU, lambda line: None)
    assert figures["psnr"] > figures["psnr_sibling"] + 1
    finish = load_finisher(settings.checkpoint, CPU.device)
    assert finish is not None
    pictures = torch.rand(3, 3, 32, 32)
    made = finish(pictures, HANDS.index(SIBLINGS[1]))
    assert made.shape == pictures.shape and float(made.min()) >= 0 and float(made.max()) <= 1
    with task.average.in_place_of(task.network):
        assert torch.allclose(
            made[0], finish.network(pictures[:1], torch.tensor([HANDS.index(SIBLINGS[1])]))[0].clamp(0, 1), atol=1e-5
        )
    assert not torch.equal(made, finish(pictures, HANDS.index(SIBLINGS[0])))


def test_pairs_are_changed_alike(inverted: IconBatches) -> None:
    task = FinishTask(inverted, 4)
    same = torch.rand(4, 3, 32, 32)
    sources, wanted = task._changed(random.Random(3), same, same)
    assert torch.equal(sources, wanted)
    assert not torch.equal(sources, same)


def test_without_a_run_there_is_none(tmp_path: Path) -> None:
    assert load_finisher(tmp_path / "checkpoint.pt", CPU.device) is None


def test_a_checkpoint_of_something_else_is_named(tmp_path: Path) -> None:
    torch.save({"modules": {"average": {}}}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"stage finish in .*checkpoint\.pt"):
        load_finisher(tmp_path / "checkpoint.pt", CPU.device)


def test_sets_that_share_no_lines_teach_nothing(icons: Path) -> None:
    dataset = load_dataset(icons)
    alone = IconDataset(dataset.images, [one for one in dataset.records if one.set == "twemoji"])
    with pytest.raises(InputError, match="same lines"):
        FinishTask(IconBatches(alone, CPU.device), 4)


def test_a_flat_hand_has_few_colours_and_keeps_what_stands_out() -> None:
    shade = torch.linspace(0.5, 0.9, 32).expand(32, 32).clone()
    picture = torch.stack([shade, shade, torch.zeros_like(shade)]).unsqueeze(0)
    picture[:, :, 10:12, 10:12] = 0.0
    finish = Finisher(FinishNetwork().eval())
    flat, soft = (finish(picture, HANDS.index(name)) for name in ("fluent-emoji-flat", "fluent-emoji"))
    assert torch.equal(soft, picture)
    assert len(flat[0].flatten(1).unique(dim=1).T) <= 10
    assert len(picture[0].flatten(1).unique(dim=1).T) > 25
    assert float(flat[0, :, 10:12, 10:12].max()) < 0.1
    assert float((flat - picture).abs().max()) < 0.25


def test_shaded_hands_are_drawn_by_the_model() -> None:
    picture = torch.rand(1, 3, 32, 32)
    finishes = Finishes(Finisher(FinishNetwork().eval()), lambda pictures, hand: 1 - pictures)
    assert torch.equal(finishes(picture, HANDS.index("fluent-emoji")), 1 - picture)
    assert torch.equal(finishes(picture, HANDS.index("emojione-monotone")), picture)
