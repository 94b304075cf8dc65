"""A session's verbs: independent calls, independent rows, and the parts they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.engine.residency import ALIGNED, BASE, TOKENIZER, Parts
from pigeon_cli.models.lora import attach_lora, load_lora
from pigeon_cli.pipeline.outcomes import Outcome
from pigeon_cli.pipeline.session import Session
from pigeon_cli.weights.checkpoint import read_part, save_part
from pigeon_cli.weights.store import ModelFolder
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return write_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="module")
def session(tiny: ModelFolder) -> Session:
    return Session(tiny, choose_device("cpu"))


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(6)]


def pixels(outcome: Outcome) -> list[bytes]:
    return [drawing.image.tobytes() for drawing in outcome.drawn]


def test_nothing_of_one_call_is_left_for_the_next(session: Session, images: list[Image.Image]) -> None:
    first = session.personalize(images[:5], images[5], "red fox", count=2)
    session.personalize(images[1:4], images[0], "", mask="random", aligned=False, seed=5)
    session.personalize(images[:2], None, "green leaf", dials=[0.5])
    again = session.personalize(images[:5], images[5], "red fox", count=2)
    assert again.candidates == first.candidates
    assert pixels(again) == pixels(first)


def test_one_dial_alone_is_the_same_as_among_eleven(session: Session, images: list[Image.Image]) -> None:
    together = session.personalize(images[:5], images[5], "red fox").candidates
    for place in (0, 4, 10):
        (alone,) = session.personalize(images[:5], images[5], "red fox", dials=[place / 10], samples=1).candidates
        assert alone.codes == together[place].codes
        assert alone.reference_tokens == together[place].reference_tokens
        assert alone.prescore == pytest.approx(together[place].prescore, abs=1e-5)


def test_the_dial_moves_only_the_reference(session: Session, images: list[Image.Image]) -> None:
    masks = [session.masks(images[:5], images[5], "", dials=[dial]).history_tokens for dial in (0.0, 0.9)]
    assert masks[0] == masks[1]


def test_history_mask_zero_drops_nothing(session: Session, images: list[Image.Image]) -> None:
    assert not any(mask.dropped for mask in session.masks(images[:5], images[5], history_mask=0.0).history_tokens)


def test_words_history_and_alignment_change_what_is_imagined(session: Session, images: list[Image.Image]) -> None:
    outcomes = [
        session.personalize(images[:5], images[5], "red fox", samples=1),
        session.personalize(images[:5], images[5], "", samples=1),
        session.personalize(images[:3], images[5], "red fox", samples=1),
        session.personalize(images[:5], images[5], "red fox", samples=1, aligned=False),
        session.personalize(images[:5], images[5], "red fox", samples=1, seed=1),
    ]
    assert len({tuple(candidate.codes for candidate in outcome.candidates) for outcome in outcomes}) == 5


def test_the_reference_of_words_alone_comes_from_the_base_model(
    session: Session, images: list[Image.Image], tiny: ModelFolder, tmp_path: Path
) -> None:
    other = ModelFolder(tmp_path / "other")
    other.path.mkdir()
    for file in tiny.path.iterdir():
        (other.path / file.name).write_bytes(file.read_bytes())
    save_part(
        other.part("lora"), {key: tensor * 0 for key, tensor in read_part(tiny.part("lora")).items()}, torch.float32
    )
    references = []
    for each in (session, Session(other, choose_device("cpu"))):
        outcome = each.personalize(images[:5], None, "red fox")
        assert outcome.candidates[0].reference_tokens is not None
        references.append(outcome.candidates[0].reference_tokens.codes)
    assert references[0] == references[1]


def test_reconstruct(session: Session, images: list[Image.Image]) -> None:
    drawn = session.reconstruct(images[0])
    assert drawn.size == (32, 32)
    assert drawn.tobytes() == session.reconstruct(images[0]).tobytes()
    assert drawn.tobytes() != session.reconstruct(images[1]).tobytes()


def test_the_folded_adapter_is_pefts(tiny: ModelFolder) -> None:
    parts, config = Parts(tiny, choose_device("cpu")), tiny.spec.language
    with parts.use(BASE) as base, parts.use(ALIGNED) as aligned:
        ids = torch.arange(40).unsqueeze(0)
        before = base(input_ids=ids).logits
        assert not torch.allclose(before, aligned(input_ids=ids).logits, atol=1e-2)
        wrapped = attach_lora(base, config)
        load_lora(wrapped, read_part(tiny.part("lora")))
        assert torch.allclose(wrapped(input_ids=ids).logits, aligned(input_ids=ids).logits, atol=1e-5)


def test_an_adapter_of_another_model_is_named(tiny: ModelFolder, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    tensors = read_part(folder.part("lora"))
    del tensors[next(iter(tensors))]
    save_part(folder.part("lora"), tensors)
    with pytest.raises(WeightsError, match=r"lora\.safetensors"), Parts(folder, choose_device("cpu")).use(ALIGNED):
        pass


def test_parts_go_after_work_when_they_do_not_fit(tiny: ModelFolder) -> None:
    parts = Parts(tiny, choose_device("cpu"), keep=False)
    with parts.use(TOKENIZER) as outer:
        with parts.use(TOKENIZER) as inner:
            assert inner is outer
        assert parts.resident == ("tokenizer",)
    assert parts.resident == ()
