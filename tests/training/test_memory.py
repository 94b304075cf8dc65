"""What the stage ``memory`` keeps: every train drawing, finishes that are missing, and nothing of other splits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pigeon_cli.engine.devices import choose_device
from pigeon_cli.models.colour_transfer import spread_of
from pigeon_cli.models.diffusion import build_vae, decode_latents, encode_latents
from pigeon_cli.models.memory import Memory
from pigeon_cli.training import quantized_drawings, redrawings
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.dataset import IconDataset, IconRecord, load_dataset
from pigeon_cli.training.data.looks import PLAIN, apply_look
from pigeon_cli.training.data.sets import HANDS
from pigeon_cli.training.finishes import worth_making
from pigeon_cli.training.foretelling import Foreteller, ForetellingNetwork, patch_width
from pigeon_cli.training.frozen_reader import frozen, frozen_taste_reader
from pigeon_cli.training.memory import CLEAREST, FLAT_HANDS, Drawing, build_memory, in_order, missing_finishes
from pigeon_cli.training.stages import frozen_tokenizer
from pigeon_cli.training.stored_drawings import StoredDrawings
from pigeon_cli.weights.checkpoint import load_part
from pigeon_cli.weights.store import ModelFolder

EMOJIONE, MONOTONE = HANDS.index("emojione"), HANDS.index("emojione-monotone")
FLUENT, FLAT, CONTRAST = (
    HANDS.index(name) for name in ("fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast")
)
CPU = choose_device("cpu")


def record(number: int, meaning: str, hand: int) -> IconRecord:
    name = HANDS[hand]
    family = name.partition("-")[0]
    cell = f"{meaning}/{name}"
    return IconRecord(number, name, family, meaning, meaning, cell, "train", number, "MIT", "", meaning, (), "g", "s")


@pytest.fixture
def kin() -> Tensor:
    """Finishes of one family agree, the high-contrast one best with the flat one; emojione and fluent do not differ
    less, but are no siblings. Ink counts half for colours."""
    agreement = torch.full((len(HANDS), len(HANDS)), 0.9)
    agreement[FLUENT, FLAT] = agreement[FLAT, FLUENT] = 0.8
    agreement[FLUENT, CONTRAST] = agreement[CONTRAST, FLUENT] = 0.6
    agreement[FLAT, CONTRAST] = agreement[CONTRAST, FLAT] = 0.7
    agreement[[FLUENT, FLAT], CONTRAST] /= 2
    agreement[EMOJIONE, MONOTONE] /= 2
    noto, first = HANDS.index("noto"), HANDS.index("noto-v1")
    agreement[noto, first] = agreement[first, noto] = 0.31
    return agreement.fill_diagonal_(1.0)


def test_finishes_are_made_for_siblings_that_draw_the_same_lines(kin: Tensor) -> None:
    pairs = {(one, other) for one in range(len(HANDS)) for other in range(len(HANDS)) if worth_making(one, other, kin)}
    assert pairs == {(MONOTONE, EMOJIONE), (FLUENT, FLAT), (FLAT, FLUENT), (CONTRAST, FLUENT), (CONTRAST, FLAT)}


def test_a_missing_finish_is_made_from_the_nearest_sibling(kin: Tensor) -> None:
    fox, flat_fox = record(0, "fox", FLUENT), record(1, "fox", FLAT)
    cat, whale = record(2, "cat", MONOTONE), record(3, "whale", HANDS.index("twemoji"))
    made = missing_finishes([fox, flat_fox, cat, whale], kin)
    # No colours where there is ink alone.
    assert made == [Drawing(flat_fox, CONTRAST)]
    dog, bear = record(4, "dog", FLAT), record(5, "bear", EMOJIONE)
    made = missing_finishes([fox, flat_fox, cat, whale, dog, bear], kin)
    assert made == [
        Drawing(flat_fox, CONTRAST), Drawing(dog, FLUENT), Drawing(dog, CONTRAST), Drawing(bear, MONOTONE)
    ]  # fmt: skip
    assert all(drawing.is_made for drawing in made)
    assert not Drawing(fox, FLUENT).is_made


def test_the_plainest_drawing_of_a_thing_is_its_first(kin: Tensor) -> None:
    records = [record(hand, "fox", hand) for hand in range(len(HANDS))]
    ordered = in_order(Drawing(one, hand) for hand, one in enumerate(records))
    assert [HANDS[drawing.hand] for drawing in ordered] == list(CLEAREST)


class Asked:
    """A finish that inverts, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Tensor, int]] = []

    def __call__(self, pictures: Tensor, hand: int) -> Tensor:
        self.asked.append((pictures, hand))
        return 1 - pictures


def remember(
    folder: ModelFolder, dataset: IconDataset, finish: Asked, network: ForetellingNetwork | None = None
) -> Memory:
    batches = IconBatches(dataset, CPU.device)
    reader = frozen_taste_reader(folder, CPU.device)
    assert reader is not None
    count = build_memory(folder, batches, frozen_tokenizer(folder, CPU), reader, lambda kin: finish, network)
    config = ModelFolder(folder.path).spec.memory
    assert config is not None and config.drawings == count
    memory = Memory(config)
    load_part(memory, folder.part("memory"))
    return memory


def with_siblings(dataset: IconDataset) -> IconDataset:
    """The two noto sets, whose made-up drawings are much alike, under the names of siblings that draw one line."""
    names = {"noto": "emojione", "noto-v1": "emojione-monotone"}
    changed = []
    for one in dataset.records:
        fields = vars(one) | ({"set": names[one.set], "family": "emojione"} if one.set in names else {})
        changed.append(IconRecord(**fields))
    images = np.array(dataset.images)
    by_cell = {(one.meaning, one.set): one.id for one in changed}
    for one in changed:
        if one.set == "emojione-monotone" and (one.meaning, "emojione") in by_cell:
            images[one.id] = images[by_cell[one.meaning, "emojione"]]
    return IconDataset(images, changed)


@pytest.fixture
def dataset(icons: Path) -> IconDataset:
    return with_siblings(load_dataset(icons))


@pytest.fixture
def folder(tiny: ModelFolder, tmp_path: Path) -> ModelFolder:
    """A copy of the tiny model, to give a memory to."""
    shutil.copytree(tiny.path, tmp_path / "model")
    return ModelFolder(tmp_path / "model")


def test_only_train_records_are_read(dataset: IconDataset, tiny: ModelFolder, tmp_path: Path) -> None:
    images = np.array(dataset.images)
    for one in dataset.records:
        if one.split != "train":
            images[one.id] = 77
    blind = IconDataset(images, dataset.by_split["train"])
    written = []
    for name, known in (("all", dataset), ("train", blind)):
        shutil.copytree(tiny.path, tmp_path / name)
        finish = Asked()
        if "valid" not in known.by_split:
            known.by_split["valid"] = ()
        remember(ModelFolder(tmp_path / name), known, finish)
        assert finish.asked
        written.append([(tmp_path / name / file).read_bytes() for file in ("memory.safetensors", "memory.txt")])
    assert written[0] == written[1]


def test_all_train_drawings_and_what_is_made_of_them_are_kept(
    dataset: IconDataset, folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which drawings are kept is asked here, not how roughly: all levels are told.
    monkeypatch.setattr(quantized_drawings, "PRICE", 0.0)
    finish = Asked()
    memory = remember(folder, dataset, finish)
    train = dataset.by_split["train"]
    things = sorted(dataset.train_by_meaning)
    owned = {(one.meaning, one.set): one for one in train}
    kept = [
        (things[thing], HANDS[hand]) for thing, hand in zip(memory.things.tolist(), memory.hands.tolist(), strict=True)
    ]
    siblings = {"emojione-monotone": "emojione"}
    missing = {(thing, "emojione-monotone") for thing, name in owned if name == "emojione"} - set(owned)
    assert missing and sorted(kept) == sorted({*owned, *missing})
    assert sum(len(pictures) for pictures, _ in finish.asked) == len(missing)
    assert {hand for _, hand in finish.asked} == {MONOTONE}
    vae = build_vae(folder.spec.diffusion)
    load_part(vae, folder.part("vae"))
    batches = IconBatches(dataset, CPU.device)
    true = [owned[cell] if cell in owned else owned[cell[0], siblings[cell[1]]] for cell in kept]
    pictures = apply_look(PLAIN, batches.rgba(true))
    inverted = torch.tensor([cell not in owned for cell in kept])[:, None, None, None]
    wanted = encode_latents(vae, torch.where(inverted, 1 - pictures, pictures))
    found = memory.latents(range(len(kept)))
    error = (found - wanted).square().mean((1, 2, 3)) / wanted.var()
    assert float(error[~inverted.flatten()].mean()) < 0.1
    # Finishes in ink are kept as pictures in four colours instead.
    made = inverted.flatten().nonzero()[:, 0].tolist()
    assert set(made) <= set(memory.pictured.tolist())
    for number in made:
        picture = memory.picture(number)
        assert picture is not None and len(picture.getcolors() or ()) <= 4
        told = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
        assert float((told - (1 - pictures[number])).abs().mean()) < 0.05
    # So is what stands in for what a hand lacks.
    numbers = {cell: number for number, cell in enumerate(kept)}
    stand_ins = {numbers[things[other], HANDS[hand]] for _, hand, other in memory.substitutes.tolist()}
    assert set(memory.pictured.tolist()) == stand_ins | set(made)
    for number in stand_ins - set(made):
        told = torch.from_numpy(np.array(memory.picture(number))).permute(2, 0, 1) / 255
        assert float((told - pictures[number]).abs().mean()) < 0.05
    assert [HANDS[hand] for hand in memory.colours.nonzero()[:, 0].tolist()] == sorted(FLAT_HANDS, key=HANDS.index)


def test_of_what_hands_lack_the_colours_are_foretold(
    dataset: IconDataset, folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrawings, "TREES", 5)
    drawn = remember(folder, dataset, Asked())
    assert drawn.config.foretold == drawn.config.redrawn == 0
    black = torch.zeros(1, 3, *[folder.spec.diffusion.image_size] * 2)
    vae = frozen(build_vae(folder.spec.diffusion), folder, "vae", CPU.device)
    said = encode_latents(vae, black)
    monkeypatch.setattr(Foreteller, "__call__", lambda self, latents, places: said.expand(len(places), -1, -1, -1))
    memory = remember(folder, dataset, Asked(), ForetellingNetwork(patch_width(folder.spec.diffusion)).eval())
    assert torch.equal(memory.packed, drawn.packed) and torch.equal(memory.things, drawn.things)
    # All that hands lack, but for what their own drawings of other things stand in for.
    kept = set(zip(memory.things.tolist(), memory.hands.tolist(), strict=True))
    stood_for = {(thing, hand) for thing, hand, _ in memory.substitutes.tolist()}
    coloured = {(thing, hand) for thing, hand in memory.foretold.tolist()}
    redrawn = {(thing, hand): drawing for thing, hand, drawing in memory.redrawn.tolist()}
    assert len(coloured) == memory.config.foretold > 0 and len(redrawn) == memory.config.redrawn > 0
    assert coloured.isdisjoint(redrawn)
    places = coloured | set(redrawn)
    assert places.isdisjoint(kept) and stood_for.isdisjoint(kept)
    assert len(places | kept | stood_for) == memory.config.things * memory.config.hands
    shown = decode_latents(vae, said)[0].permute(2, 0, 1).float() / 255
    wanted = spread_of(shown)
    assert wanted is not None
    # Redrawn is a true drawing of the same thing by another hand; all are few enough to be sketched.
    for (thing, hand), drawing in redrawn.items():
        assert int(memory.things[drawing]) == thing and int(memory.hands[drawing]) != hand
        assert drawing in memory.key_drawings and memory.sketch(drawing) is not None
    assert memory.config.sketched == len(set(redrawn.values()))
    for thing, hand in coloured:
        told = memory.colours_foretold(thing, hand)
        assert told is not None and torch.allclose(told.mean, wanted.mean, atol=1e-2)
    assert memory.colours_foretold(*next(iter(kept))) is None


def test_stored_drawings_are_what_the_memory_gives_back(dataset: IconDataset, folder: ModelFolder) -> None:
    memory = remember(folder, dataset, Asked())
    vae = frozen(build_vae(folder.spec.diffusion), folder, "vae", CPU.device)
    stored = StoredDrawings(ModelFolder(folder.path), sorted(dataset.train_by_meaning), vae, CPU.device)
    record = dataset.by_split["train"][-1]
    # The memory's keys stand in the order of the train records.
    pixels = decode_latents(vae, memory.latents([int(memory.key_drawings[-1])]))[0]
    rgba = stored.rgba([record, record])
    assert torch.equal((rgba[1, :3] * 255).round().byte(), pixels.permute(2, 0, 1))
    assert bool((rgba[:, 3] == 1).all())


def test_liked_pictures_are_known_by_their_lines_and_paper_is_not(dataset: IconDataset, folder: ModelFolder) -> None:
    memory = remember(folder, dataset, Asked())
    vae = frozen(build_vae(folder.spec.diffusion), folder, "vae", CPU.device)
    stored = StoredDrawings(ModelFolder(folder.path), sorted(dataset.train_by_meaning), vae, CPU.device)
    plain = apply_look(PLAIN, IconBatches(dataset, CPU.device).rgba(list(dataset.by_split["train"][:1])))
    known = stored.known(torch.cat([plain, torch.ones_like(plain)]))
    assert torch.equal(known[0], memory.latents([int(memory.key_drawings[0])])[0])
    assert not known[1].any()
