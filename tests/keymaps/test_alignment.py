"""Finding an alignment in its published forms and in ours, and laying its LoRA beside the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from pigeon_cli.core.errors import OutputError, WeightsError
from pigeon_cli.weights.official import OfficialFolder
from pigeon_cli.weights.published_alignment import Alignment, check_settings, find_alignment, pack
from tests.keymaps.official_files import (
    BUILDERS,
    loaded,
    read_back,
    tiny_spec,
    write_lora,
    write_stage_one,
    write_tensors,
)
from tests.parity.golden import fill

Copy = Callable[[Path], Path]


def lora_path(alignment: Alignment) -> Path:
    [path] = alignment.source("lora").files.shards
    return path


@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
def test_a_stage_one_checkpoint_is_found_by_itself_and_from_above(tmp_path: Path, ending: str) -> None:
    checkpoint = write_stage_one(tmp_path / "run" / "checkpoint-40", ending)
    for folder in (checkpoint, tmp_path):
        found = find_alignment(folder)
        assert lora_path(found) == checkpoint / "llama" / f"adapter_model{ending}"
        names = {"mask_generator": "pytorch_model" if ending == ".bin" else "model"}
        [path] = found.source("mask_generator").files.shards
        assert path == checkpoint / "mask_generator" / f"{names['mask_generator']}{ending}"


@pytest.mark.parametrize("part", ["mask_generator", "adapter"])
@pytest.mark.parametrize("ours", [False, True], ids=["published", "packed"])
def test_mask_generator_and_adapter_get_the_weights_of_the_rule(
    sharded: Path, checkpoints: Path, tmp_path: Path, part: str, ours: bool
) -> None:
    found = find_alignment(checkpoints)
    folder = OfficialFolder(sharded, pack(found, tmp_path) if ours else found)
    module = loaded(folder, part)
    expected = BUILDERS[part](tiny_spec())
    fill(expected, {"mask_generator": "mask"}.get(part, part), 0)
    parameters = dict(expected.named_parameters())
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, parameters[name]), name
    if part == "mask_generator":
        [path] = found.source(part).files.shards
        assert torch.equal(module.position_embedding.pe, read_back(path)["position_embedding.pe"])


@pytest.mark.parametrize("where", ["llama", "llama/policy"])
def test_both_forms_of_the_lora_give_what_peft_computes(sharded: Path, tmp_path: Path, where: str) -> None:
    checkpoint = write_stage_one(tmp_path / "checkpoint-40")
    if where != "llama":
        shutil.rmtree(checkpoint / "llama")
        write_lora(checkpoint / where)
    folder = OfficialFolder(sharded, find_alignment(tmp_path))
    base, lora = loaded(folder, "language").eval(), loaded(folder, "lora")
    ids = torch.tensor([[5, 9, 44, 60]])
    with torch.no_grad():
        plain = base(ids).logits
        with lora.applied_to(base):
            found = base(ids).logits
        expected = PeftModel.from_pretrained(base, checkpoint / where).eval()(ids).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, plain, atol=1e-2)


def test_the_lora_of_stage_two_replaces_that_of_stage_one(checkpoints: Path) -> None:
    found = find_alignment(checkpoints)
    assert lora_path(found).parent.parts[-4:] == ("dpo", "checkpoint-90", "llama", "policy")
    assert found == find_alignment(checkpoints / "sft", checkpoints / "dpo")
    assert lora_path(find_alignment(checkpoints / "sft")).parent.parts[-2:] == ("checkpoint-500", "llama")


def test_a_stage_two_lora_that_was_moved_by_hand_is_found(checkpoints: Path, copy_of: Copy) -> None:
    folder = copy_of(checkpoints)
    llama = folder / "dpo" / "checkpoint-90" / "llama"
    for path in (llama / "policy").iterdir():
        path.rename(llama / path.name)
    assert lora_path(find_alignment(folder)).parent == llama


def test_the_frozen_copy_of_preference_alignment_is_passed_over(checkpoints: Path, copy_of: Copy) -> None:
    folder = copy_of(checkpoints)
    write_lora(folder / "dpo" / "checkpoint-90" / "llama" / "reference")
    assert lora_path(find_alignment(folder)).parent.name == "policy"


def test_two_checkpoints_are_not_chosen_between(checkpoints: Path, copy_of: Copy) -> None:
    folder = copy_of(checkpoints)
    other = write_stage_one(folder / "sft" / "checkpoint-900")
    with pytest.raises(WeightsError) as caught:
        find_alignment(folder)
    assert all(str(path) in caught.value.message for path in (other, folder / "sft" / "checkpoint-500"))
    shutil.rmtree(other)
    write_lora(folder / "dpo" / "checkpoint-95" / "llama" / "policy")
    with pytest.raises(WeightsError, match=r"more than one LoRA: .*checkpoint-90.*checkpoint-95"):
        find_alignment(folder)


@pytest.mark.parametrize("lacking", ["sft/checkpoint-500/adapter", "sft/checkpoint-500/mask_generator"])
def test_a_folder_without_a_part_of_stage_one_is_refused(checkpoints: Path, copy_of: Copy, lacking: str) -> None:
    folder = copy_of(checkpoints)
    shutil.rmtree(folder / lacking)
    with pytest.raises(WeightsError, match="no folder with mask_generator and adapter") as caught:
        find_alignment(folder)
    assert str(folder) in caught.value.message and caught.value.hint


def test_a_folder_without_a_lora_is_refused(checkpoints: Path, tmp_path: Path, copy_of: Copy) -> None:
    folder = copy_of(checkpoints / "sft")
    shutil.rmtree(folder / "checkpoint-500" / "llama")
    with pytest.raises(WeightsError, match="there is no LoRA"):
        find_alignment(folder)
    with pytest.raises(WeightsError, match="there is no folder"):
        find_alignment(tmp_path / "absent")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("r", 4, "rank 4, alpha 6 on q_proj, v_proj; the model wants rank 3, alpha 6"),
        ("lora_alpha", 32, "alpha 32"),
        ("target_modules", ["q_proj", "k_proj"], "on k_proj, q_proj"),
    ],
)
def test_settings_of_another_lora_are_refused(sharded: Path, tmp_path: Path, field: str, value: Any, said: str) -> None:
    checkpoint = write_stage_one(tmp_path)
    write_lora(checkpoint / "llama", **{field: value})
    folder = OfficialFolder(sharded, find_alignment(checkpoint))
    with pytest.raises(WeightsError, match=said) as caught:
        loaded(folder, "lora")
    assert str(checkpoint / "llama" / "adapter_config.json") in caught.value.message


def test_targets_have_no_order(tmp_path: Path) -> None:
    checkpoint = write_stage_one(tmp_path)
    write_lora(checkpoint / "llama", target_modules=["v_proj", "q_proj"])
    check_settings(find_alignment(checkpoint), tiny_spec().language)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_rslora", True),
        ("alpha_pattern", {"q_proj": 4}),
        ("peft_type", "IA3"),
        ("target_modules", ".*"),
        ("r", None),
    ],
)
def test_settings_that_would_change_the_sums_are_refused(tmp_path: Path, field: str, value: Any) -> None:
    checkpoint = write_stage_one(tmp_path)
    write_lora(checkpoint / "llama", **{field: value})
    with pytest.raises(WeightsError, match="r, lora_alpha" if field in ("target_modules", "r") else field):
        find_alignment(checkpoint)


def test_our_own_folder_holds_the_same_tensors_and_settings(checkpoints: Path, tmp_path: Path) -> None:
    published = find_alignment(checkpoints)
    ours = pack(published, tmp_path / "ours")
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["alignment.safetensors", "pigeon.json"]
    assert ours.lora == published.lora
    assert find_alignment(tmp_path / "ours") == ours
    packed = read_back(tmp_path / "ours" / "alignment.safetensors")
    for part in ("mask_generator", "adapter", "lora"):
        for key, (_, tensor) in published.source(part).files.tensors().items():
            assert torch.equal(packed.pop(f"{part}.{key}"), tensor), key
    assert not packed


def test_packing_loses_no_precision(checkpoints: Path, copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of(checkpoints)
    types = {"mask_generator": torch.float16, "adapter": torch.bfloat16, "lora": torch.bfloat16}
    alignment = find_alignment(folder)
    for part, dtype in types.items():
        [path] = alignment.source(part).files.shards
        write_tensors(path, {key: tensor.to(dtype) for key, tensor in read_back(path).items()})
    ours = pack(alignment, tmp_path / "ours")
    for part in types:
        found = ours.source(part).files.tensors()
        for key, (_, tensor) in alignment.source(part).files.tensors().items():
            assert torch.equal(found[f"{part}.{key}"][1].double(), tensor.double())


def test_a_packed_alignment_without_its_settings_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    pack(find_alignment(checkpoints), tmp_path)
    (tmp_path / "pigeon.json").write_text(json.dumps(["no", "object"]), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"pigeon\.json is no JSON object"):
        find_alignment(tmp_path)
    (tmp_path / "pigeon.json").unlink()
    with pytest.raises(WeightsError, match=r"pigeon\.json"):
        find_alignment(tmp_path)


def test_packing_where_nothing_can_be_written_says_so(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "ours" / "pigeon.json").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"pigeon\.json"):
        pack(find_alignment(checkpoints), tmp_path / "ours")
    assert not list((tmp_path / "ours").glob(".*"))
