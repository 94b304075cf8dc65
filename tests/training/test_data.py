"""The dataset and its requests, on a small icon set made here and, if PIGEON_DATA is set, on a built one."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pigeon_cli.core.errors import InputError
from pigeon_cli.training.data import packages as packages_module
from pigeon_cli.training.data.icons import IconDataset, build_dataset, load_dataset
from pigeon_cli.training.data.looks import HELD_OUT_KINDS
from pigeon_cli.training.data.requests import (
    TrainingRequest,
    draw_evaluation_requests,
    draw_training_request,
    requests_from_text,
    requests_sha256,
    requests_to_text,
)
from pigeon_cli.training.data.splits import SPLITS, is_unseen, rule_split
from tests.tiny_icons import MEANINGS, pack_package, write_icon_packages


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small npm packages."""
    folder = tmp_path_factory.mktemp("packages")
    write_icon_packages(folder)
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset built from ``source``, 32 px."""
    out = tmp_path_factory.mktemp("data")
    build_dataset(source, out, size=32)
    return out


@pytest.fixture(scope="module", params=["small", "real"])
def dataset(request: pytest.FixtureRequest, built: Path) -> IconDataset:
    """The small dataset and, when PIGEON_DATA names its folder, the real one."""
    if request.param == "small":
        return load_dataset(built)
    if "PIGEON_DATA" not in os.environ:
        pytest.skip("PIGEON_DATA names no built dataset")
    return load_dataset(Path(os.environ["PIGEON_DATA"]))


def _leaks(dataset: IconDataset, ids: set[int]) -> list[str]:
    """Cells among ``ids`` that training may not see: held out, twin of one held out, or of an unseen meaning."""
    held_out = {record.twins for record in dataset.records if record.split != "train"}
    held_out |= {record.twins for record in dataset.records if rule_split(record.meaning, record.set) != "train"}
    chosen = [dataset.records[number] for number in sorted(ids)]
    return [r.cell for r in chosen if r.split != "train" or r.twins in held_out or is_unseen(r.meaning)]


def test_build_is_reproducible_and_leaves_no_parts(source: Path, built: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    summary = build_dataset(source, tmp_path, size=32, progress=lambda done, total: steps.append((done, total)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "index.jsonl", "summary.json"]
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (built / path.name).read_bytes()
    assert steps[-1] == (summary.images, summary.images)
    assert sum(summary.splits.values()) == summary.images
    sources = json.loads((tmp_path / "summary.json").read_text())["packages"]
    assert sources["@iconify-json/noto"]["licence"] == "Apache-2.0"


def test_what_is_kept(built: Path) -> None:
    small = load_dataset(built)
    names = [*MEANINGS, "woman-thing-7", "tall", "second-name"]
    assert set(small.by_meaning) == {name.replace("-", "") for name in names}
    assert ("secondname", "twemoji") not in small.by_cell
    assert small.by_cell["thing9", "noto"].attribution == "Noto by Ann (https://example.org)"
    assert small.by_cell["thing9", "twemoji"].licence == "CC-BY-4.0"
    assert small.by_cell["thing9", "noto"].family == small.by_cell["thing9", "noto-v1"].family


def test_words_by_code_point_by_alias_and_by_name(built: Path) -> None:
    small = load_dataset(built)
    by_code, by_alias = small.by_cell["thing4", "noto"], small.by_cell["thing2", "noto"]
    assert (by_code.label, by_code.tags) == ("grinning thing", ("smile",))
    assert (by_code.group, by_code.subgroup) == ("smileys", "face")
    assert by_alias.label == "other thing 2"
    assert small.by_cell["secondname", "noto"].label == "second name"


def test_rendering_is_centred_keeps_aspect_and_draws_currentcolor_black(built: Path) -> None:
    small = load_dataset(built)
    tall = small.images[small.by_cell["tall", "noto"].id]
    assert np.flatnonzero(tall[16, :, 3]).tolist() == list(range(8, 24))
    assert tall[16, 16].tolist() == [255, 0, 0, 255]
    ink = small.images[small.by_cell["thing5", "fluent-emoji-high-contrast"].id]
    assert int(ink[..., 3].max()) == 255
    assert int(ink[ink[..., 3] > 0][:, :3].max()) == 0


def test_variants_and_shared_bodies_are_twins(built: Path) -> None:
    small = load_dataset(built)
    cell = small.by_cell
    assert cell["womanthing7", "noto"].twins == cell["thing7", "noto"].twins
    assert cell["secondname", "noto"].twins == cell["thing11", "noto"].twins
    assert cell["thing7", "noto"].twins != cell["thing7", "twemoji"].twins


def test_twins_share_a_split_that_no_member_weakens(dataset: IconDataset) -> None:
    groups: dict[int, set[str]] = {}
    for record in dataset.records:
        groups.setdefault(record.twins, set()).add(record.split)
        assert SPLITS.index(record.split) >= SPLITS.index(rule_split(record.meaning, record.set))
    assert all(len(splits) == 1 for splits in groups.values())
    assert max(Counter(record.twins for record in dataset.records).values()) <= 40


def test_unseen_meanings_are_unseen_in_every_set(dataset: IconDataset) -> None:
    meanings = {meaning for meaning in dataset.by_meaning if is_unseen(meaning)}
    assert meanings
    assert {record.split for meaning in meanings for record in dataset.by_meaning[meaning]} == {"unseen"}


def test_training_draws_nothing_held_out(dataset: IconDataset) -> None:
    rng = random.Random(0)
    seen: set[int] = set()
    for _ in range(3000):
        request = draw_training_request(dataset, rng)
        seen |= {*request.history, request.reference, request.target}
        looks = [request.look, *(image.look for image in request.planted)]
        assert not any(look.is_held_out for look in looks)
        _check(dataset, request)
        assert 2 <= len(request.history) <= 5
    assert len(seen) > len(dataset.by_split["train"]) * 0.6
    assert _leaks(dataset, seen) == []


def _check(dataset: IconDataset, request: TrainingRequest) -> None:
    """What holds for every request, of training and of evaluation."""
    target, reference = dataset.records[request.target], dataset.records[request.reference]
    assert target.set == request.set
    assert reference.meaning == target.meaning
    assert reference.family != target.family
    assert request.words in ("", target.label)
    planted = {image.position: image for image in request.planted}
    assert 2 * len(planted) <= len(request.history)
    for position, number in enumerate(request.history):
        record = dataset.records[number]
        assert record.twins != target.twins
        assert (record.set != request.set) == (position in planted)
        if position in planted:
            assert planted[position].id == number
            assert planted[position].set == record.set
            assert planted[position].look != request.look
        assert request.history_looks()[position] == (planted[position].look if position in planted else request.look)


def test_shares_of_planted_images_and_words(dataset: IconDataset) -> None:
    rng = random.Random(3)
    requests = [draw_training_request(dataset, rng) for _ in range(2000)]
    assert 0.35 < sum(bool(request.planted) for request in requests) / 2000 < 0.45
    assert 0.45 < sum(bool(request.words) for request in requests) / 2000 < 0.55
    assert {len(request.history) for request in requests} == {2, 3, 4, 5}
    assert {len(request.planted) for request in requests} == {0, 1, 2}


def test_training_requests_follow_their_seed(dataset: IconDataset) -> None:
    first, second = random.Random(9), random.Random(9)
    left = [draw_training_request(dataset, first) for _ in range(40)]
    assert left == [draw_training_request(dataset, second) for _ in range(40)]
    assert left != [draw_training_request(dataset, second) for _ in range(40)]


@pytest.mark.parametrize("split", ["valid", "test", "unseen"])
@pytest.mark.parametrize("planted", [0, 2])
def test_evaluation_requests_follow_the_protocol(dataset: IconDataset, split: str, planted: int) -> None:
    requests = draw_evaluation_requests(dataset, split, 60, seed=1, planted=planted)
    assert len(requests) == 60
    assert sum(bool(request.words) for request in requests) == 30
    for request in requests:
        _check(dataset, request)
        assert dataset.records[request.target].split == split
        assert len(request.history) == 5
        assert len(request.planted) == planted
        assert not request.look.is_held_out
        if split == "unseen":
            styles = dataset.by_meaning[dataset.records[request.target].meaning]
            assert {record.split for record in styles} == {"unseen"}
    assert _leaks(dataset, {number for request in requests for number in request.history}) == []


def test_evaluation_requests_follow_their_seed(dataset: IconDataset) -> None:
    first = draw_evaluation_requests(dataset, "test", 50, seed=4)
    assert requests_sha256(first) == requests_sha256(draw_evaluation_requests(dataset, "test", 50, seed=4))
    assert requests_sha256(first) != requests_sha256(draw_evaluation_requests(dataset, "test", 50, seed=5))


def test_targets_repeat_only_after_all_were_used(dataset: IconDataset) -> None:
    requests = draw_evaluation_requests(dataset, "valid", 25, seed=2)
    assert len({request.target for request in requests}) == 25


def test_held_out_looks_on_request(dataset: IconDataset) -> None:
    requests = draw_evaluation_requests(dataset, "valid", 40, seed=0, held_out_looks=True, planted=1)
    assert {kind for request in requests for kind in request.look.kinds} == set(HELD_OUT_KINDS)


def test_request_file_round_trip(dataset: IconDataset) -> None:
    requests = draw_evaluation_requests(dataset, "test", 30, seed=7, planted=1)
    text = requests_to_text(requests)
    assert requests_from_text(text) == requests
    with pytest.raises(InputError, match="not a request file"):
        requests_from_text(text[:-30])


@pytest.mark.parametrize(("split", "planted"), [("train", 0), ("test", 3)])
def test_impossible_evaluations_are_refused(dataset: IconDataset, split: str, planted: int) -> None:
    with pytest.raises(InputError):
        draw_evaluation_requests(dataset, split, 5, seed=0, planted=planted)


def test_sets_beyond_the_nine_are_refused(source: Path, tmp_path: Path) -> None:
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = {"name": "@iconify-json/openmoji", "version": "1"}
    icons = {"prefix": "openmoji", "icons": {}}
    info = {"name": "x", "author": {"name": "y"}}
    files = {"package.json": manifest, "icons.json": icons, "info.json": info, "chars.json": {}}
    pack_package(tmp_path / "openmoji.tgz", files)
    with pytest.raises(InputError, match="openmoji"):
        build_dataset(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_and_missing_packages_are_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="iconify-json"):
        build_dataset(tmp_path, tmp_path / "out")
    (tmp_path / "noto.tgz").write_bytes((source / "iconify-json-noto-1.0.0.tgz").read_bytes()[:900])
    with pytest.raises(InputError, match=r"noto\.tgz"):
        build_dataset(tmp_path, tmp_path / "out")


def test_missing_npm_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages_module.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="npm") as caught:
        build_dataset(None, tmp_path)
    assert "Node" in caught.value.hint


def test_a_drawing_that_cannot_be_rendered_is_named(tmp_path: Path, source: Path) -> None:
    from pigeon_cli.training.data.render import render_icon

    icon = packages_module.Icon("noto", "broken", "<g><rect", (0, 0, 16, 16), hidden=False)
    with pytest.raises(InputError, match="noto/broken"):
        render_icon(icon, 32)


@pytest.mark.parametrize("name", ["images.npy", "index.jsonl"])
def test_incomplete_datasets_are_refused(built: Path, tmp_path: Path, name: str) -> None:
    for path in built.iterdir():
        if path.name != name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="no usable dataset"):
        load_dataset(tmp_path)


def test_index_of_another_build_is_refused(built: Path, tmp_path: Path) -> None:
    (tmp_path / "images.npy").write_bytes((built / "images.npy").read_bytes())
    lines = (built / "index.jsonl").read_text().splitlines()[:-1]
    (tmp_path / "index.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="do not belong together"):
        load_dataset(tmp_path)
