"""Every stage of training in a few steps, on a tiny dataset and a tiny model, through the commands people type."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from pigeon_cli.cli.main import app
from pigeon_cli.core.errors import InputError
from pigeon_cli.models.memory import Memory
from pigeon_cli.pipeline.recall import remembered
from pigeon_cli.training.code_cache import CodeOrigin, load_code_cache
from pigeon_cli.training.data.alike import outlines_of
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.data.icons import build_dataset
from pigeon_cli.training.data.sets import HANDS
from pigeon_cli.weights.checkpoint import load_part
from pigeon_cli.weights.spec_file import spec_text
from pigeon_cli.weights.store import PARTS, find_model
from tests.tiny_icons import write_icon_packages
from tests.tiny_model import tiny_spec

TEXT_PIECES = 290
LOOPS = ("vae", "tokenizer", "style", "taste", "translator", "decoder", "foretell", "language", "scorer")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("data")
    write_icon_packages(source)
    build_dataset(source, out, size=32)
    return out


def run(data: Path, model: Path, runs: Path, *words: str) -> dict[str, float]:
    options = ["--data", str(data), "--model", str(model), "--runs", str(runs), "--device", "cpu"]
    result = CliRunner().invoke(app, [*words, *options])
    assert result.exit_code == 0, result.stderr
    figures: dict[str, float] = json.loads(result.stdout)
    return figures


def steps(count: int) -> list[str]:
    return ["--steps", str(count), "--batch", "4", "--evaluate-every", str(count)]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder and a run folder in which every stage has run."""
    model, runs = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("runs")
    spec = tiny_spec(TEXT_PIECES)
    seeing = replace(spec, mask_generator=replace(spec.mask_generator, image_layers=1))
    (model / "config.json").write_text(spec_text(seeing))
    run(data, model, runs, "train", "text")
    for stage in LOOPS:
        if stage == "translator":
            run(data, model, runs, "train", "encode", "--looks", "2", "--cells", "12")
        run(data, model, runs, "train", stage, *steps(10))
    run(data, model, runs, "align", "reconstruct", *steps(4))
    return model, runs


def test_the_memory_holds_every_train_drawing_in_one_run(
    data: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained[0], model)
    dataset = load_dataset(data)
    # Neither encoded pictures nor an entry in config.json are needed.
    figures = run(data, model, tmp_path / "runs", "train", "memory")
    folder = find_model(str(model))
    config = folder.spec.memory
    assert config is not None and figures == {"drawings": config.drawings}
    assert replace(folder.spec, memory=None) == find_model(str(trained[0])).spec
    things = sorted(dataset.train_by_meaning)
    assert len(remembered(model)) == len(things) == config.things
    memory = Memory(config)
    load_part(memory, folder.part("memory"))
    cells = {
        (things[thing], HANDS[hand]) for thing, hand in zip(memory.things.tolist(), memory.hands.tolist(), strict=True)
    }
    records = dataset.by_split["train"]
    assert len(cells) == config.drawings
    assert {(record.meaning, record.set) for record in records} <= cells
    of_keys = memory.key_drawings.long()
    shown = [things[thing] for thing in memory.things[of_keys].tolist()]
    drew = [HANDS[hand] for hand in memory.hands[of_keys].tolist()]
    assert list(zip(shown, drew, strict=True)) == [(record.meaning, record.set) for record in records]
    # Every picture of training is recognised as what it shows.
    told_apart = [
        int(memory.recognise(line).argmax()) == things.index(record.meaning)
        for record, line in zip(records, outlines_of(dataset, records), strict=True)
    ]
    assert sum(told_apart) > 0.9 * len(told_apart)
    assert memory.kinship.diagonal().tolist() == [1.0] * len(HANDS)


def test_stages_make_a_complete_model(trained: tuple[Path, Path]) -> None:
    folder = find_model(str(trained[0]))
    assert folder.missing() == []
    for part in PARTS:
        assert all(tensor.isfinite().all() for tensor in load_file(folder.part(part)).values())


def test_runs_leave_metrics_checkpoints_and_sheets(trained: tuple[Path, Path]) -> None:
    for stage in (*LOOPS, "reconstruct"):
        lines = [json.loads(line) for line in (trained[1] / stage / "metrics.jsonl").read_text().splitlines()]
        assert any("evaluation" in line for line in lines)
        assert (trained[1] / stage / "checkpoint.pt").is_file()
        # The translator is trained before there is an image generator.
        assert stage == "translator" or list((trained[1] / stage).glob("sheet-*.png"))


def test_code_cache_holds_train_cells_only(data: Path, trained: tuple[Path, Path]) -> None:
    records = load_dataset(data).records
    looks = load_code_cache(trained[1] / "codes", CodeOrigin.of(find_model(str(trained[0])), data))
    assert {records[number].split for look in looks for number in look.records} == {"train"}
    assert not any(look.look.is_held_out for look in looks)


def test_codes_of_another_tokenizer_or_dataset_are_refused(
    data: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    origin = CodeOrigin.of(find_model(str(trained[0])), data)
    for other in (replace(origin, tokenizer="0" * 64), replace(origin, index="0" * 64)):
        with pytest.raises(InputError, match="another tokenizer or dataset"):
            load_code_cache(trained[1] / "codes", other)
    cut_short = shutil.copytree(trained[1] / "codes", tmp_path / "codes")
    (cut_short / "origin.json").unlink()
    with pytest.raises(InputError, match="no usable code cache"):
        load_code_cache(cut_short, origin)


@pytest.mark.parametrize(
    "stage", ["vae", "tokenizer", "style", "taste", "translator", "decoder", "language", "reconstruct"]
)
def test_resumed_stage_ends_like_an_uninterrupted_one(
    stage: str, data: Path, trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = "align" if stage == "reconstruct" else "train"
    ends = []
    for name in ("whole", "broken"):
        model, runs = tmp_path / name / "model", tmp_path / name / "runs"
        shutil.copytree(trained[0], model)
        shutil.copytree(trained[1] / "codes", runs / "codes")
        if stage == "decoder":
            shutil.copytree(trained[1] / "translator", runs / "translator")
            # So that the pool changes, and the resumed run begins in the midst of one.
            monkeypatch.setattr("pigeon_cli.training.tasks.decoder.POOL_STEPS", 3)
        if name == "broken":
            crash_at(monkeypatch, step=4)
            result = CliRunner().invoke(
                app, [group, stage, *steps(6), "--data", str(data), "--model", str(model), "--runs", str(runs)]
            )
            assert result.exit_code == 130
            monkeypatch.undo()
            # First weights are computed where a run begins, not to be overwritten by a checkpoint.
            monkeypatch.delattr("pigeon_cli.training.tasks.tokenizer.start_encoder")
            monkeypatch.setattr("pigeon_cli.training.tasks.decoder.POOL_STEPS", 3)
            ends.append(run(data, model, runs, group, stage, *steps(6), "--resume"))
        else:
            ends.append(run(data, model, runs, group, stage, *steps(6)))
    assert ends[0]["loss"] == pytest.approx(ends[1]["loss"], abs=1e-5)


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Save after every step, and interrupt before ``step``."""
    from pigeon_cli.training import loop

    original = loop._Run._step

    def broken(self: loop._Run, number: int) -> dict[str, torch.Tensor]:
        if number == step:
            raise KeyboardInterrupt
        losses = original(self, number)
        self._save(number + 1)
        return losses

    monkeypatch.setattr(loop._Run, "_step", broken)


def test_init_from_starts_with_the_given_weights(data: Path, trained: tuple[Path, Path], tmp_path: Path) -> None:
    fresh = run(data, copy_of(trained[0], tmp_path / "a"), tmp_path / "ra", "train", "vae", *steps(1))
    warm = run(
        data,
        copy_of(trained[0], tmp_path / "b"),
        tmp_path / "rb",
        "train",
        "vae",
        *steps(1),
        "--init-from",
        str(trained[0]),
    )
    assert warm["loss"] < fresh["loss"]


def copy_of(model: Path, target: Path) -> Path:
    shutil.copytree(model, target)
    return target
