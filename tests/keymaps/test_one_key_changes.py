"""One changed key in any published file stops the loading, with the file, the key and both shapes in the message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights import keymaps
from pigeon_cli.weights.keymaps import KeyMap, Target
from pigeon_cli.weights.official import OfficialFolder
from pigeon_cli.weights.published import Source
from pigeon_cli.weights.published_alignment import find_alignment, pack
from tests.keymaps.official_files import loaded, read_back, write_tensors

Change = Callable[[dict[str, Tensor], str], str]
Copy = Callable[[Path], Path]
EVERY_FILE = (*keymaps.MODEL_FILES, *keymaps.ALIGNMENT_FILES)


def without(tensors: dict[str, Tensor], key: str) -> str:
    shape = tuple(tensors.pop(key).shape)
    return f"lacks the tensor {key}; the model wants {shape}"


def with_another(tensors: dict[str, Tensor], key: str) -> str:
    tensors[f"{key}.extra"] = torch.zeros(2, 5)
    return f"holds the unknown tensor {key}.extra (2, 5); the model wants none"


def in_another_shape(tensors: dict[str, Tensor], key: str) -> str:
    shape = tuple(tensors[key].shape)
    tensors[key] = torch.zeros(*shape, 2)
    return f"holds the tensor {key} as {(*shape, 2)}; the model wants {shape}"


def in_integers(tensors: dict[str, Tensor], key: str) -> str:
    shape = tuple(tensors[key].shape)
    tensors[key] = torch.zeros(shape, dtype=torch.int8)
    return f"holds the tensor {key} as {shape} of torch.int8; the model wants {shape} of torch.float32"


CHANGES = (without, with_another, in_another_shape, in_integers)


def change_one_key(source: Source, change: Change) -> tuple[Path, str]:
    """Change the middle key of the last file of ``source``; that file, and what the message should say about it."""
    path = source.files.shards[-1]
    tensors = read_back(path)
    used = [key for key in sorted(tensors) if isinstance(source.keymap.place(key), Target)]
    expected = change(tensors, used[len(used) // 2])
    write_tensors(path, tensors)
    return path, expected


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("keymap", EVERY_FILE, ids=lambda entry: entry.files[-1])
def test_the_file_the_key_and_both_shapes_are_named(
    sharded: Path, checkpoints: Path, copy_of: Copy, keymap: KeyMap, change: Change
) -> None:
    folder = OfficialFolder(copy_of(sharded), find_alignment(copy_of(checkpoints)))
    source = next(entry for entry in folder.sources(keymap.part) if entry.keymap.files == keymap.files)
    path, expected = change_one_key(source, change)
    with pytest.raises(WeightsError) as caught:
        loaded(folder, keymap.part)
    assert caught.value.message == f"the weights file {path} {expected}"


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("part", [entry.part for entry in keymaps.ALIGNMENT_FILES])
def test_our_own_alignment_file_is_as_strict(
    sharded: Path, checkpoints: Path, tmp_path: Path, part: str, change: Change
) -> None:
    folder = OfficialFolder(sharded, pack(find_alignment(checkpoints), tmp_path))
    path, expected = change_one_key(folder.aligned.source(part), change)
    with pytest.raises(WeightsError) as caught:
        loaded(folder, part)
    assert caught.value.message == f"the weights file {path} {expected}"


def test_of_many_wrong_tensors_one_is_named_and_the_others_counted(sharded: Path, copy_of: Copy) -> None:
    folder = OfficialFolder(copy_of(sharded))
    [source] = folder.sources("decoder")
    [path] = source.files.shards
    tensors = read_back(path)
    write_tensors(path, {key: tensor for key, tensor in tensors.items() if not key.startswith("blocks.1.")})
    gone = sorted(key for key in tensors if key.startswith("blocks.1."))
    with pytest.raises(WeightsError) as caught:
        loaded(folder, "decoder")
    assert f"lacks the tensor {gone[0]}" in caught.value.message
    assert f"({len(gone) - 1} more tensors do not fit)" in caught.value.message


def test_a_tensor_under_its_old_and_its_new_name_is_caught(sharded: Path, copy_of: Copy) -> None:
    folder = OfficialFolder(copy_of(sharded))
    [source] = folder.sources("vae")
    [path] = source.files.shards
    tensors = read_back(path)
    key = "decoder.mid_block.attentions.0.to_q.weight"
    write_tensors(path, {**tensors, key.replace("to_q", "query"): tensors[key].clone()})
    with pytest.raises(WeightsError, match="under two names"):
        loaded(folder, "vae")


def test_a_key_that_the_index_lists_is_missed_in_its_shard(sharded: Path, copy_of: Copy) -> None:
    folder = OfficialFolder(copy_of(sharded))
    first, second = next(iter(folder.sources("language"))).files.shards
    tensors = read_back(first)
    key = sorted(tensors)[0]
    del tensors[key]
    write_tensors(first, tensors)
    with pytest.raises(WeightsError) as caught:
        loaded(folder, "language")
    assert f"{first} lacks the tensor {key}" in caught.value.message
    assert str(second) not in caught.value.message
