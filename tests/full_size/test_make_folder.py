"""The tool that makes a folder of the published sizes: same tables at full size, loadable at a tiny one."""

from __future__ import annotations

import json
import shutil
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import OutputError
from pigeon_cli.weights import keymaps
from pigeon_cli.weights.official import OfficialFolder
from pigeon_cli.weights.official_spec import BUNDLED_SPEC
from pigeon_cli.weights.published import read_tensors
from pigeon_cli.weights.spec_file import read_spec
from tests.full_size.check_folder import part_bytes
from tests.full_size.make_folder import RESERVE, alignment_file, make_folder, model_files, shallow
from tests.full_size.stream import PIECE, WeightsFile, write_random
from tests.keymaps.official_files import MANIFEST_OF, manifest, published_shapes, tiny_spec

PUBLISHED_GIGABYTES = {
    "language_model/pytorch_model-00001-of-00003.safetensors": 4.58,
    "language_model/pytorch_model-00002-of-00003.safetensors": 4.86,
    "language_model/pytorch_model-00003-of-00003.safetensors": 4.31,
    "visual_tokenizer/eva_vitg_psz14.safetensors": 2.03,
    "visual_tokenizer/tokenizer_encoder.safetensors": 0.808,
    "visual_tokenizer/highres_tokenizer_decoder.safetensors": 0.83,
    "highres_pixel_decoding/unet/diffusion_pytorch_model.safetensors": 5.14,
    "highres_pixel_decoding/vae/diffusion_pytorch_model.safetensors": 0.335,
}
"""Sizes on the hub (issue 4, section 1)."""


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return read_spec(BUNDLED_SPEC)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "tiny"
    make_folder(folder, tiny_spec(), alignment=True)
    return folder


@pytest.mark.parametrize("name", MANIFEST_OF)
def test_a_file_at_full_size_is_its_manifest(spec: ModelSpec, name: str) -> None:
    assert published_shapes(MANIFEST_OF[name], spec) == manifest(name)


def test_files_at_full_size_have_the_published_sizes(spec: ModelSpec) -> None:
    files = [file for keymap in keymaps.MODEL_FILES for file in model_files(keymap, spec)]
    assert {file.path for file in files} == PUBLISHED_GIGABYTES.keys()
    for file in files:
        assert file.bytes / 1e9 == pytest.approx(PUBLISHED_GIGABYTES[file.path], rel=3e-3), file.path


def test_fewer_layers_leave_the_other_tensors_as_they_are(spec: ModelSpec) -> None:
    few = shallow(spec, 1)
    for keymap in (*keymaps.MODEL_FILES, *keymaps.ALIGNMENT_FILES):
        whole, rest = published_shapes(keymap, spec), published_shapes(keymap, few)
        assert rest.keys() <= whole.keys()
        # What comes up in a UNet is as wide as what went down at its side.
        assert rest.items() <= whole.items() or keymap is keymaps.UNET
        assert (rest == whole) == (keymap in (keymaps.MASK_GENERATOR, keymaps.ADAPTER))
    assert shallow(spec, 99) == spec


def test_what_is_made_loads_strictly_part_by_part(tiny: Path) -> None:
    sizes = dict(part_bytes(tiny, alignment=True))
    assert set(sizes) == {"tokenizer", "decoder", "language", "unet", "vae", "mask_generator", "adapter", "lora"}
    assert all(sizes.values())
    assert OfficialFolder(tiny).spec == tiny_spec()
    assert sizes["lora"] == alignment_file(keymaps.LORA, tiny_spec()).bytes


def test_shards_are_those_of_the_index(tiny: Path) -> None:
    folder = tiny / "language_model"
    index: dict[str, Any] = json.loads((folder / "pytorch_model.safetensors.index.json").read_text(encoding="utf-8"))
    for shard in model_files(keymaps.LANGUAGE, tiny_spec()):
        name = Path(shard.path).name
        with safe_open(tiny / shard.path, framework="pt") as file:
            assert {key for key, place in index["weight_map"].items() if place == name} == set(file.keys())
            assert all(file.get_slice(key).get_dtype() == "BF16" for key in shard.shapes)


def test_norms_are_one_biases_zero_and_weights_small(tmp_path: Path) -> None:
    shapes = {"norm.weight": (8,), "norm.bias": (8,), "big.weight": (5, PIECE // 4)}
    file = WeightsFile("deep/er/weights.safetensors", shapes)
    written = write_random(tmp_path, file, seed=3)
    assert written == (tmp_path / file.path).stat().st_size
    assert [path.name for path in tmp_path.rglob("*.*")] == ["weights.safetensors"]
    found = read_tensors(tmp_path / file.path)
    assert {key: tuple(tensor.shape) for key, tensor in found.items()} == shapes
    assert bool((found["norm.weight"] == 1).all()) and not bool(found["norm.bias"].any())
    weights = found["big.weight"].float()
    assert float(weights.std()) == pytest.approx(0.02, rel=0.01)
    assert len(weights[4].unique()) > 1000, "also what lies beyond the first piece is random"


def test_deviations_and_centred_rows_are_heeded(tmp_path: Path) -> None:
    shapes = {"wide": (64, 64), "centred": (64, 64)}
    file = WeightsFile("weights.safetensors", shapes, torch.float32, {"wide": 4.0}, frozenset({"centred"}))
    write_random(tmp_path, file, seed=0)
    found = read_tensors(tmp_path / file.path)
    assert float(found["wide"].std()) == pytest.approx(4.0, rel=0.1)
    assert float(found["centred"].std()) == pytest.approx(0.02, rel=0.1)
    assert float(found["centred"].mean(1).abs().max()) < 1e-8 < float(found["wide"].mean(1).abs().min())


def test_the_selector_s_special_tensors_are_there(spec: ModelSpec) -> None:
    keymaps_of_tokenizer = (keymaps.ENCODER, keymaps.SELECTOR_MERGER_QUANTIZER)
    encoder, rest = (file for keymap in keymaps_of_tokenizer for file in model_files(keymap, spec))
    assert encoder.deviations.keys() <= encoder.shapes.keys() and encoder.deviations
    assert rest.centred <= rest.shapes.keys() and rest.centred


def test_the_same_seed_gives_the_same_file_and_no_two_tensors_are_alike(tmp_path: Path) -> None:
    file = WeightsFile("weights.safetensors", {"one": (4, 8), "two": (4, 8)}, torch.float32)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_random(tmp_path / name, file, seed)
    first, again, other = ((tmp_path / name / file.path).read_bytes() for name in "abc")
    assert first == again != other
    found = read_tensors(tmp_path / "a" / file.path)
    assert not torch.equal(found["one"], found["two"])


def test_a_folder_that_is_not_empty_is_refused(tiny: Path) -> None:
    with pytest.raises(OutputError, match="is there already"):
        make_folder(tiny, tiny_spec(), alignment=False)


def test_too_small_a_disk_is_refused_before_anything_is_written(
    tmp_path: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(file.bytes for keymap in keymaps.MODEL_FILES for file in model_files(keymap, spec))
    assert needed == pytest.approx(22.9e9, rel=3e-3)
    usage = shutil.disk_usage(tmp_path)._replace(free=needed + RESERVE - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"needs 22\.9 GB in .*, where 22\.9 GB are free"):
        make_folder(tmp_path / "new" / "folder", spec, alignment=False)
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_a_shard_are_counted_once(spec: ModelSpec) -> None:
    shards = model_files(keymaps.LANGUAGE, spec)
    keys = [key for shard in shards for key in shard.shapes]
    assert keys == list(manifest("language_model"))
    assert sum(shard.bytes for shard in shards) == 2 * sum(map(prod, manifest("language_model").values()))
