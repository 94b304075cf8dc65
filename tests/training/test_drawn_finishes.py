"""Finishes that a model draws itself."""

from __future__ import annotations

from pathlib import Path

import torch

from pigeon_cli.engine.devices import choose_device
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.data.looks import PLAIN, apply_look
from pigeon_cli.training.data.sets import HANDS
from pigeon_cli.training.drawn_finishes import UNetFinisher
from pigeon_cli.training.frozen_reader import frozen_taste_reader
from pigeon_cli.training.stages import frozen_tokenizer
from pigeon_cli.weights.store import ModelFolder

CPU = choose_device("cpu")


def test_a_finish_is_told_by_its_hand_and_does_not_depend_on_its_batch(icons: Path, tiny: ModelFolder) -> None:
    batches = IconBatches(load_dataset(icons), CPU.device)
    reader = frozen_taste_reader(tiny, CPU.device)
    assert reader is not None
    finish = UNetFinisher(tiny, batches, frozen_tokenizer(tiny, CPU), reader, HANDS)
    pictures = apply_look(PLAIN, batches.rgba(batches.train[:3]))
    noto, twemoji = (finish(pictures, HANDS.index(name)) for name in ("noto", "twemoji"))
    assert noto.shape == pictures.shape
    assert float(noto.min()) >= 0 and float(noto.max()) <= 1
    assert not torch.equal(noto, twemoji)
    alone = finish(pictures[1:2], HANDS.index("noto"))
    assert float((alone - noto[1:2]).abs().max()) <= 2 / 255
