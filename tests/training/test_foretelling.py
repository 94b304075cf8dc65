"""What a hand never drew, foretold from others' drawings of it and from its own of other things."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pigeon_cli.core.errors import InputError
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.training import drawing_critic, foretelling
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.dataset import IconDataset, load_dataset
from pigeon_cli.training.data.sets import HANDS
from pigeon_cli.training.foretelling import (
    EXAMPLES,
    SHOWN,
    Foreteller,
    ForetellingNetwork,
    load_foretelling_network,
    look_up,
    patch_width,
    patched,
)
from pigeon_cli.training.loop import LoopSettings, run_training
from pigeon_cli.training.tasks import foretell
from pigeon_cli.training.tasks.foretell import ForetellTask
from pigeon_cli.weights.store import ModelFolder

CPU = choose_device("cpu")


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """A network that is trained in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foretelling, "WIDTH", 32)
        patch.setattr(foretelling, "BLOCKS", 3)
        patch.setattr(drawing_critic, "WIDTH", 4)
        yield


@pytest.fixture(scope="module")
def task(icons: Path, tiny: ModelFolder) -> ForetellTask:
    torch.manual_seed(0)
    return ForetellTask(tiny, IconBatches(load_dataset(icons), CPU.device), 8, 120)


def test_at_first_the_mean_of_what_is_shown_is_foretold() -> None:
    shown, there = torch.randn(2, SHOWN, 16, 4, 4), torch.zeros(2, SHOWN, dtype=torch.bool)
    there[0, :3] = there[1, 5] = True
    foretold = ForetellingNetwork(16)(shown * there[:, :, None, None, None], there, torch.tensor([0, 8]))
    assert torch.allclose(foretold[0], shown[0, :3].mean(0), atol=1e-5)
    assert torch.allclose(foretold[1], shown[1, 5], atol=1e-5)


def test_what_is_not_there_is_not_looked_at() -> None:
    patches = torch.arange(1.0, 4.0)[:, None, None, None].expand(-1, 4, 2, 2)
    shown, there = look_up(patches, torch.tensor([[2, -1], [0, 1]]))
    assert shown[:, :, 0, 0, 0].tolist() == [[3, 0], [1, 2]]
    assert there.tolist() == [[True, False], [True, True]]


def test_a_drawing_is_foretold_without_it_and_its_twins(task: ForetellTask) -> None:
    records = task.batches.train
    for row, (thing, hand) in enumerate(task.places.tolist()):
        shown = task.table.shown(torch.tensor([thing]), torch.tensor([hand]))[0]
        assert row not in shown and len(shown) == SHOWN
        others, examples = shown[: len(HANDS)].tolist(), shown[len(HANDS) :].tolist()
        assert all(records[one].meaning == records[row].meaning for one in others if one >= 0)
        own = [records[one] for one in examples if one >= 0]
        assert own and all(one.set == records[row].set and one.twins != records[row].twins for one in own)


def test_in_training_some_drawings_are_hidden_and_never_another_is_shown(task: ForetellTask) -> None:
    torch.manual_seed(1)
    things, hands = task.places.T
    whole = task.table.shown(things, hands)
    others, examples = task._others(things, hands), task._examples(things, hands)
    assert bool(((others == whole[:, : len(HANDS)]) | (others == -1)).all())
    assert int((others >= 0).sum()) < int((whole[:, : len(HANDS)] >= 0).sum())
    listed = task.table.examples[things, hands]
    assert examples.shape == (len(things), EXAMPLES)
    assert bool((examples.unsqueeze(2) == listed.unsqueeze(1)).any(2).all())


def test_drawings_are_foretold_better_than_by_their_mean_and_read_from_the_run(
    task: ForetellTask, tiny: ModelFolder, tmp_path: Path
) -> None:
    settings = LoopSettings(tmp_path / "foretell", 120, 16, 3e-3, warmup=5, evaluate_every=120)
    figures = run_training(task, settings, CPU, lambda line: None)
    assert figures["valid_loss"] < 0.97 * figures["valid_loss_of_the_mean"]
    network = load_foretelling_network(settings.checkpoint, tiny.spec.diffusion, CPU.device)
    assert network is not None
    places = task.valid_places[:3]
    foretold = Foreteller(network, task.table)(task.plain, places)
    assert foretold.shape == task.plain[:3].shape
    with task.average.in_place_of(task.network):
        alone = Foreteller(task.network.eval(), task.table)(task.plain, places[1:2])
    assert torch.allclose(foretold[1:2], alone, atol=1e-4)


def test_network_and_critic_each_learn_from_their_own_loss(task: ForetellTask, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients(step: int) -> tuple[float, float]:
        task.network.zero_grad()
        task.critic.zero_grad()
        torch.manual_seed(2)
        task.loss(step, random.Random(2))["loss"].backward()
        return size_of(task.network), size_of(task.critic)

    network, critic = gradients(task.alone - 1)
    assert network > 0 and critic == 0
    judged, learning = gradients(task.alone + 10)
    assert judged > 0 and learning > 0
    # The critic's wishes weigh nothing: what is left is the error's own gradient, and the critic learns as before.
    monkeypatch.setattr(foretell, "PASSING", 0.0)
    plain, same = gradients(task.alone + 10)
    assert plain == pytest.approx(network, rel=1e-4) and same == pytest.approx(learning, rel=1e-3)
    assert judged != pytest.approx(plain, rel=1e-3)


def size_of(module: nn.Module) -> float:
    found = [each.grad.norm() for each in module.parameters() if each.grad is not None]
    return float(torch.stack(found).norm()) if found else 0.0


def test_every_parameter_is_trained_once(task: ForetellTask, tmp_path: Path) -> None:
    groups = task.parameter_groups(LoopSettings(tmp_path, 10, 4, 1e-3))
    listed = [id(each) for group in groups for each in group["params"]]
    wanted = {id(each) for module in (task.network, task.critic) for each in module.parameters()}
    assert len(listed) == len(set(listed)) and set(listed) == wanted


def test_nothing_asked_is_nothing_foretold(task: ForetellTask, tiny: ModelFolder) -> None:
    none = torch.zeros(0, 2, dtype=torch.int64)
    assert Foreteller(task.network, task.table)(task.plain, none).shape == (0, *task.plain.shape[1:])
    assert patched(task.plain).shape[1] == patch_width(tiny.spec.diffusion)


def test_without_a_run_there_is_none(tiny: ModelFolder, tmp_path: Path) -> None:
    assert load_foretelling_network(tmp_path / "checkpoint.pt", tiny.spec.diffusion, CPU.device) is None


def test_a_checkpoint_of_something_else_is_named(tiny: ModelFolder, tmp_path: Path) -> None:
    torch.save({"modules": {"average": {}}}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"stage foretell in .*checkpoint\.pt"):
        load_foretelling_network(tmp_path / "checkpoint.pt", tiny.spec.diffusion, CPU.device)


def test_a_lone_set_teaches_nothing(icons: Path, tiny: ModelFolder) -> None:
    dataset = load_dataset(icons)
    alone = IconDataset(dataset.images, [one for one in dataset.records if one.set == "twemoji"])
    with pytest.raises(InputError, match="same thing"):
        ForetellTask(tiny, IconBatches(alone, CPU.device), 4, 10)
