"""People's own data: folders, interactions and the published files, windows and splits, and pickles that do harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pigeon_cli.cli.main import app
from pigeon_cli.core.errors import InputError, UsageError
from pigeon_cli.training import people_codes
from pigeon_cli.training.data.interactions import Interaction, cut_windows, rule_split
from pigeon_cli.training.data.people import read_people
from pigeon_cli.training.data.safe_arrays import read_array
from pigeon_cli.training.pairs import NEAR_TIES, read_pairs
from pigeon_cli.weights.alignment_folder import read_record
from pigeon_cli.weights.checkpoint import read_part
from pigeon_cli.weights.store import ModelFolder
from tests.published_data import save_object, write_images, write_published


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """Two users with eleven images each, whose names are ordered by number, and one with too few."""
    folder = tmp_path / "users"
    for number, name in enumerate(("ann", "bob")):
        write_images(folder / name, 11, seed=number)
    write_images(folder / "cid", 3, seed=9)
    (folder / "ann" / "6.txt").write_text("red fox\nTitle: The Fox (1999)\n")
    (folder / "ann" / "notes.md").write_text("no image")
    (folder / "ann" / "12.png").write_bytes(b"broken")
    return folder


def test_a_folder_of_users(users: Path) -> None:
    people = read_people(users)
    assert Counter(window.user for window in people.windows) == {"ann": 6, "bob": 6}
    first = people.windows[0]
    assert [one.image.name for one in first.images] == [f"{number}.png" for number in range(1, 7)]
    assert (first.target.words, first.target.title, first.target.told) == ("red fox", "The Fox (1999)", "red fox")
    assert len(first.history) == 5
    assert any("12.png" in warning for warning in people.warnings)
    assert any("1 users with fewer than 6" in warning for warning in people.warnings)


def interactions(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "likes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_of_interactions_is_ordered_by_time(tmp_path: Path) -> None:
    rows = [{"user": "ann", "image": f"{time}.png", "time": time, "title": f"T{time}"} for time in (5, 2, 9, 1, 7, 3)]
    people = read_people(interactions(tmp_path, rows))
    assert [one.image for one in people.windows[0].images] == [tmp_path / f"{time}.png" for time in (1, 2, 3, 5, 7, 9)]
    assert people.windows[0].target.told == "T9"
    for row in rows:
        del row["time"]
    again = read_people(interactions(tmp_path, rows))
    assert [one.image.stem for one in again.windows[0].images] == ["5", "2", "9", "1", "7", "3"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"image": "a.png"}, "'user'"),
        ({"user": "ann", "image": "a.png", "colour": 1}, "'colour' is unknown"),
        ({"user": "ann", "image": "a.png", "time": [1]}, "time is neither"),
    ],
)
def test_a_line_that_is_no_interaction_is_named(row: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"line 2 of .*{told}"):
        read_people(interactions(tmp_path, [{"user": "ann", "image": "a.png"}, row]))


@pytest.mark.parametrize("times", [(1, "2020-01-01"), ("2020-01-01T10:00", "2020-01-01T09:00Z")])
def test_times_of_two_kinds_are_refused(times: tuple[Any, ...], tmp_path: Path) -> None:
    rows = [{"user": "ann", "image": "a.png", "time": time} for time in times]
    with pytest.raises(InputError, match="different kinds"):
        read_people(interactions(tmp_path, rows))


def test_texts_of_times_are_ordered_as_moments(tmp_path: Path) -> None:
    hours = ["10:00+02:00", "09:00Z", "11:30+01:00", "08:30+00:00", "12:00Z", "07:59Z"]
    rows = [{"user": "ann", "image": f"{n}.png", "time": f"2026-01-01T{hour}"} for n, hour in enumerate(hours)]
    people = read_people(interactions(tmp_path, rows))
    assert [one.image.stem for one in people.windows[0].images] == ["5", "0", "3", "1", "2", "4"]
    rows[0]["time"] = "9"
    with pytest.raises(InputError, match=r"line 1 of .*'9'"):
        read_people(interactions(tmp_path, rows))


def test_a_text_may_hold_any_character(tmp_path: Path) -> None:
    path = tmp_path / "likes.jsonl"
    line = '{"user": "\\ud83d", "image": "%d.png", "words": "two\u2028lines\x85"}\r\n'
    path.write_bytes("".join(line % number for number in range(6)).encode())
    people = read_people(path)
    assert [window.user for window in people.windows] == ["\ud83d"]
    assert people.windows[0].target.words == "two lines"


def test_data_is_known_by_its_images_wherever_they_lie(users: Path, tmp_path: Path) -> None:
    before = read_people(users).sha256
    moved = users.rename(tmp_path / "moved")
    assert read_people(moved).sha256 == before
    (moved / "ann" / "3.png").write_bytes((moved / "bob" / "3.png").read_bytes())
    assert read_people(moved).sha256 != before
    people = read_people(moved)
    (moved / "ann" / "4.png").unlink()
    with pytest.raises(InputError, match=r"cannot read the image .*4\.png"):
        _ = people.sha256


def test_the_split_is_by_rule_and_users_stay_apart() -> None:
    liked = {
        f"user {user}": [Interaction(f"user {user}", Path(f"{place}.png")) for place in range(25)] for user in range(60)
    }
    by_windows, by_users = cut_windows(liked, "windows"), cut_windows(liked, "users")
    shares = Counter(window.split for window in by_windows.windows)
    assert 0.77 < shares["train"] / 1200 < 0.83
    assert 0.07 < shares["valid"] / 1200 < 0.13
    assert any(len({window.split for window in by_windows.windows if window.user == user}) > 1 for user in liked)
    splits = {user: {window.split for window in by_users.windows if window.user == user} for user in liked}
    assert all(len(own) == 1 for own in splits.values())
    assert set().union(*splits.values()) == {"train", "valid", "test"}
    assert rule_split("user 3", 4, "windows") == by_windows.windows[3 * 20 + 4].split


def test_the_published_files(tmp_path: Path) -> None:
    write_published(tmp_path)
    people = read_people(tmp_path)
    assert Counter(window.split for window in people.windows) == {"train": 4, "valid": 1, "test": 1}
    first = people.windows[0]
    assert (first.user, first.target.image) == ("7", tmp_path / "images" / "6.png")
    assert (first.target.words, first.target.title) == ("happiness a picture of thing 5", "Film 5 (1995)")
    assert [window.user for window in people.windows[2:4]] == ["9", "9"]
    apart = read_people(tmp_path, "users")
    assert len({window.split for window in apart.windows if window.user == "7"}) == 1


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["train.npy", "all_image_paths.npy", "titles.npy"])
def test_a_malicious_pickle_is_refused_and_nothing_runs(name: str, tmp_path: Path) -> None:
    write_published(tmp_path)
    canary = tmp_path / "canary"
    save_object(tmp_path / name, {7: [Canary(canary)]})
    with pytest.raises(InputError, match=rf"{name}: it asks for posix.mkdir"):
        read_people(tmp_path)
    assert not canary.exists()
    np.load(tmp_path / name, allow_pickle=True)
    assert canary.exists(), "the pickle would have done it"


@pytest.mark.parametrize(
    "payload",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x.npy'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"c_codecs\ndecode\n(S'x'\ntR.",
        b"S'x'\nQ.",
        pickle.dumps(Counter("ab")),
        pickle.dumps({1, 2}, 2),
        b"]" * 30,
        b"",
    ],
)
def test_what_is_no_data_is_refused_by_name(payload: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.npy"
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    path.write_bytes(stream.getvalue() + payload)
    with pytest.raises(InputError, match=r"odd\.npy"):
        read_array(path)


@pytest.mark.parametrize(
    "header",
    [b"(((", b"{'descr': '<f4',", b"  {'a'\n :1}", b"{'descr': '<f4', 'fortran_order': False, 'shape': (10**16,)}"],
)
def test_a_damaged_header_is_refused_by_name(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.npy"
    padded = header.replace(b"10**16", str(10**16).encode()).ljust(118) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded)
    with pytest.raises(InputError, match=r"odd\.npy"):
        read_array(path)


def test_plain_pickles_come_back_as_they_were(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, "x", None, True, (3, 4)], 5: np.arange(3), "t": np.float32(0.5), "s": np.array(["p", "q"])}
    save_object(tmp_path / "v.npy", value)
    found = read_array(tmp_path / "v.npy")
    assert found["a"] == [1, 2.5, "x", None, True, [3, 4]]
    assert found[5].tolist() == [0, 1, 2]
    assert (found["t"], found["s"].tolist()) == (0.5, ["p", "q"])


def test_images_outside_the_folder_are_refused(tmp_path: Path) -> None:
    write_published(tmp_path)
    np.save(tmp_path / "all_image_paths.npy", np.array(["../../etc/passwd"] * 16))
    with pytest.raises(InputError, match="outside its folder"):
        read_people(tmp_path)


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["align", *words, "--device", "cpu"])


def test_stage_one_and_pairs_on_peoples_own_images(
    users: Path, tiny: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NEAR_TIES, "history", 1e-4)
    encoded: list[int] = []
    original = people_codes.tokenize

    def counting(tokenizer: Any, images: Any) -> Any:
        encoded.append(len(images))
        return original(tokenizer, images)

    monkeypatch.setattr(people_codes, "tokenize", counting)
    common = ["--data", str(users), "--model", str(tiny.path)]
    steps = ["--steps", "4", "--batch", "2", "--evaluate-every", "4"]
    out = tmp_path / "aligned"
    result = invoke("reconstruct", *common, "--out", str(out), *steps)
    assert result.exit_code == 0, result.stderr
    assert read_record(out).settings["target"] == "self"
    assert sum(encoded) == 22
    encoded.clear()
    assert invoke("reconstruct", *common, "--out", str(out), *steps, "--resume").exit_code == 0
    assert sum(encoded) == 0
    pairs = tmp_path / "pairs.jsonl"
    result = invoke("pairs", *common, "--alignment", str(out), "--out", str(pairs), "--score", "history")
    assert result.exit_code == 0, result.stderr
    train = [window for window in read_people(users).windows if window.split == "train"]
    assert json.loads(result.stdout)["requests"] == len(train)
    assert {len(pair.history) for pair in read_pairs(pairs, tiny.spec)} == {5}


def test_of_one_user_the_mask_learns_nothing(users: Path, tiny: ModelFolder, tmp_path: Path) -> None:
    shutil.rmtree(users / "bob")
    out = tmp_path / "aligned"
    steps = ["--steps", "2", "--batch", "2", "--evaluate-every", "2"]
    result = invoke("reconstruct", "--data", str(users), "--model", str(tiny.path), "--out", str(out), *steps)
    assert result.exit_code == 0, result.stderr
    assert "nobody shows the mask a stranger" in result.stderr
    assert "supervision" not in (out / "run" / "metrics.jsonl").read_text()
    kept, before = (read_part(folder.part("mask_generator")) for folder in (ModelFolder(out), tiny))
    assert all(torch.equal(kept[name], before[name].float()) for name in before)
    learned = read_part(ModelFolder(out).part("adapter"))
    first = read_part(tiny.part("base_adapter"))
    assert not torch.equal(learned["encoder.weight"], first["encoder.weight"].float())


def test_data_without_a_train_window_is_refused(tiny: ModelFolder, tmp_path: Path) -> None:
    write_images(tmp_path / "users" / "alice", 6, seed=1)
    assert rule_split("alice", 0, "windows") == "valid"
    common = ["--data", str(tmp_path / "users"), "--model", str(tiny.path), "--out", str(tmp_path / "out")]
    for command in ("reconstruct", "pairs"):
        result = invoke(command, *common)
        assert result.exit_code == InputError.exit_code
        assert "no window falls into the train split" in result.stderr


def test_pairs_are_made_by_one_process(
    users: Path, tiny: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = invoke("pairs", "--data", str(users), "--model", str(tiny.path), "--out", str(tmp_path / "pairs.jsonl"))
    assert result.exit_code == UsageError.exit_code
    assert "without accelerate launch" in result.stderr
    assert not (tmp_path / "pairs.jsonl").exists()


@pytest.mark.parametrize("command", ["reconstruct", "pairs"])
def test_a_published_model_is_not_aligned(command: str, users: Path, tmp_path: Path) -> None:
    for part in ("language_model", "visual_tokenizer"):
        (tmp_path / "big" / part).mkdir(parents=True)
    for model in ("sticker", str(tmp_path / "big")):
        result = invoke(command, "--data", str(users), "--model", model, "--out", str(tmp_path / "out"))
        assert result.exit_code == UsageError.exit_code
        assert "can be drawn with, not aligned yet" in result.stderr


def test_what_own_images_do_not_have_is_refused(users: Path, tiny: ModelFolder, tmp_path: Path) -> None:
    common = ["--data", str(users), "--model", str(tiny.path), "--out", str(tmp_path / "out")]
    paired = invoke("reconstruct", *common, "--target", "paired")
    answer = invoke("pairs", *common, "--score", "answer")
    for refused, told in ((paired, "--target self"), (answer, "--score both")):
        assert refused.exit_code == UsageError.exit_code
        assert told in refused.stderr
