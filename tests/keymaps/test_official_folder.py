"""A folder in the published layout loads whole, in every form, and its own configurations count."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.models.diffusion import build_scheduler
from pigeon_cli.weights import keymaps
from pigeon_cli.weights.official import OfficialFolder, is_official
from pigeon_cli.weights.official_spec import LANGUAGE_CONFIG, OWN_SPEC, UNET_CONFIG
from pigeon_cli.weights.published import assign, find_files, read_tensors
from pigeon_cli.weights.published_alignment import find_alignment
from tests.keymaps.official_files import (
    BUILDERS,
    PUBLISHED_EPSILON,
    loaded,
    read_back,
    tiny_spec,
    write_json,
    write_tensors,
)
from tests.parity.golden import Rename, fill

MAPPINGS = Path("/proc/self/maps")
MODEL_PARTS = ("tokenizer", "decoder", "language", "unet", "vae")
PARITY_NAMES = {"selector": "token_predictor", "merger": "causal_encoder", "task_layer": "encode_task_layer"}
"""How the parity tests, whose numbers prove it, name the parts of ``tokenizer_encoder.bin``."""

Copy = Callable[[Path], Path]


def by_the_weight_rule(part: str) -> Any:
    """The module of ``part`` filled as the parity tests fill theirs, without the key maps."""
    module = BUILDERS[part](tiny_spec())
    if part != "tokenizer":
        fill(module, {"decoder": "hires", "language": "llama"}.get(part, part), 0)
        return module
    fill(module.encoder, "eva", 0)
    for ours, published in {**PARITY_NAMES, "quantizer": "quantize"}.items():
        rename: Rename = f"{published}.".__add__
        fill(module.get_submodule(ours), "tok", 0, rename)
    return module


@pytest.mark.parametrize("part", MODEL_PARTS)
def test_every_form_gives_the_weights_of_the_rule(any_form: Path, part: str) -> None:
    found = loaded(OfficialFolder(any_form), part).state_dict()
    expected = by_the_weight_rule(part).state_dict()
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


def test_every_form_is_recognised_and_complete(any_form: Path) -> None:
    assert is_official(any_form)
    assert OfficialFolder(any_form).missing() == []
    assert not is_official(any_form / "language_model")


def test_a_loaded_language_model_computes_as_one_that_was_built_in_memory(sharded: Path) -> None:
    # The rotary frequencies are in no file: a model that lost them would differ or fail.
    folder = OfficialFolder(sharded)
    found = loaded(folder, "language").eval()
    expected = BUILDERS["language"](folder.spec).eval()
    expected.load_state_dict(by_the_weight_rule("language").state_dict())
    ids = torch.tensor([[5, 9, 44, 60]])
    with torch.no_grad():
        assert torch.equal(found(ids).logits, expected(ids).logits)


def test_a_module_without_its_buffers_is_refused(sharded: Path) -> None:
    folder = OfficialFolder(sharded)
    with torch.device("meta"):
        module = BUILDERS["language"](folder.spec)
    with pytest.raises(ValueError, match="inv_freq is in no file"):
        assign(module, folder.sources("language"))


@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
def test_tensors_are_mapped_keep_their_type_and_never_change_the_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"weights{ending}"
    write_tensors(path, {"first": torch.ones(4, dtype=torch.bfloat16), "second": torch.arange(6.0, dtype=torch.half)})
    before = path.read_bytes()
    found = read_tensors(path)
    assert {name: tensor.dtype for name, tensor in found.items()} == {"first": torch.bfloat16, "second": torch.half}
    if MAPPINGS.is_file():
        assert str(path) in MAPPINGS.read_text(encoding="utf-8")
    found["first"].add_(1)
    assert path.read_bytes() == before
    assert torch.equal(read_tensors(path)["first"], torch.ones(4, dtype=torch.bfloat16))


def test_the_folder_s_own_configurations_win(sharded: Path) -> None:
    spec = OfficialFolder(sharded).spec
    assert spec.language.rms_norm_epsilon == PUBLISHED_EPSILON
    assert {**asdict(spec.language), "rms_norm_epsilon": 1e-5} == asdict(tiny_spec().language)
    assert spec.diffusion.scheduler == {"steps_offset": 1, "prediction_type": "v_prediction"}
    assert spec.diffusion.unet == tiny_spec().diffusion.unet, "notes of diffusers on itself are left out"
    scheduler: Any = build_scheduler(spec.diffusion)
    assert scheduler.config["prediction_type"] == "v_prediction"


def test_without_a_specification_of_its_own_a_folder_has_the_7b_sizes(sharded: Path, copy_of: Copy) -> None:
    folder = copy_of(sharded)
    (folder / OWN_SPEC).unlink()
    spec = OfficialFolder(folder).spec
    assert (spec.tokenizer.encoder_depth, spec.decoder.depth, spec.vocabulary.size) == (40, 12, 48386)


@pytest.mark.parametrize(
    ("field", "value"), [("hidden_act", "gelu"), ("num_key_value_heads", 1), ("rope_theta", 5e5), ("rope_scaling", {})]
)
def test_a_language_model_that_ours_cannot_be_is_refused_by_name(
    sharded: Path, copy_of: Copy, field: str, value: Any
) -> None:
    path = copy_of(sharded) / LANGUAGE_CONFIG
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), field: value})
    with pytest.raises(WeightsError, match=field) as caught:
        OfficialFolder(path.parent.parent).spec  # noqa: B018
    assert str(path) in caught.value.message


def test_a_converted_file_stands_for_its_pickle_once_it_is_whole(sharded: Path, copy_of: Copy) -> None:
    folder, unet = copy_of(sharded), keymaps.UNET
    stem = folder / unet.files[0]
    names = sorted(path.name for path in stem.parent.glob("*.bin"))
    for name in names:
        assert find_files(folder, unet.files).shards[0].suffix == ".bin", "half converted: the pickles are read"
        write_tensors((stem.parent / name).with_suffix(".safetensors"), read_back(stem.parent / name))
    found = find_files(folder, unet.files)
    assert [path.name for path in found.shards] == [name.replace(".bin", ".safetensors") for name in names]
    for name in names:
        (stem.parent / name).unlink()
    assert loaded(OfficialFolder(folder), "unet").state_dict().keys() == by_the_weight_rule("unet").state_dict().keys()


@pytest.mark.parametrize(
    "name",
    [
        "language_model/pytorch_model-00002-of-00002.bin",
        "language_model/tokenizer.model",
        "visual_tokenizer/eva_vitg_psz14.bin",
        "highres_pixel_decoding/vae/diffusion_pytorch_model.bin",
        UNET_CONFIG,
    ],
)
def test_a_missing_file_is_named(sharded: Path, copy_of: Copy, name: str) -> None:
    folder = copy_of(sharded)
    (folder / name).unlink()
    assert OfficialFolder(folder).missing() == [name]


def test_shards_without_an_index_are_found_by_their_numbers(sharded: Path, copy_of: Copy) -> None:
    folder = copy_of(sharded)
    for index in folder.rglob("*.index.json"):
        index.unlink()
    assert loaded(OfficialFolder(folder), "language").lm_head.weight.shape == (66, 32)
    (folder / "language_model" / "pytorch_model-00001-of-00002.bin").unlink()
    assert OfficialFolder(folder).missing() == ["language_model/pytorch_model-00001-of-00002.bin"]


@pytest.mark.parametrize("table", [{"x": "../elsewhere.bin"}, {"x": "/etc/passwd"}, {"x": ["a"]}, {}, None])
def test_an_index_cannot_lead_out_of_its_folder(sharded: Path, copy_of: Copy, table: Any) -> None:
    folder = copy_of(sharded)
    index = folder / "language_model" / "pytorch_model.bin.index.json"
    write_json(index, {"weight_map": table})
    with pytest.raises(WeightsError) as caught:
        loaded(OfficialFolder(folder), "language")
    assert str(index) in caught.value.message


def test_one_key_in_two_shards_is_caught_with_both_files(sharded: Path, copy_of: Copy) -> None:
    folder = copy_of(sharded)
    first, second = sorted((folder / "language_model").glob("*.bin"))
    key = next(iter(read_back(first)))
    write_tensors(second, {**read_back(second), key: read_back(first)[key]})
    with pytest.raises(WeightsError) as caught:
        loaded(OfficialFolder(folder), "language")
    assert all(text in caught.value.message for text in (str(first), str(second), key))


@pytest.mark.parametrize("part", ["mask_generator", "adapter", "lora"])
def test_without_an_alignment_its_parts_are_refused(sharded: Path, part: str) -> None:
    with pytest.raises(WeightsError, match="without an alignment"):
        OfficialFolder(sharded).sources(part)


def test_the_adapter_of_a_base_model_is_refused_by_name(sharded: Path, checkpoints: Path) -> None:
    for folder in (OfficialFolder(sharded), OfficialFolder(sharded, find_alignment(checkpoints))):
        with pytest.raises(WeightsError, match="published models have no base_adapter") as caught:
            folder.tensor_files("base_adapter")
        assert str(sharded) in caught.value.message and caught.value.hint


def test_a_vae_with_the_former_names_of_its_attention_loads(sharded: Path, copy_of: Copy) -> None:
    folder = copy_of(sharded)
    path = find_files(folder, keymaps.VAE.files).shards[0]
    former = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = read_back(path)
    for name, older in former.items():
        tensors = {key.replace(name, older): tensor for key, tensor in tensors.items()}
    assert len(tensors.keys() - read_back(path).keys()) == 16
    write_tensors(path, tensors)
    found, expected = loaded(OfficialFolder(folder), "vae").state_dict(), by_the_weight_rule("vae").state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
