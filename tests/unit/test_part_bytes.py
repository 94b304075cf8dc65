"""Bytes from headers: by hand, against tensors that are loaded, and of the 7B model from its manifests."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import MemoryBudgetError, WeightsError
from pigeon_cli.engine.part_bytes import Stored, is_linear, part_size, stored
from pigeon_cli.engine.plan import Device, Plan, Precision, make_plan, precisions
from pigeon_cli.engine.schedule import Part
from pigeon_cli.engine.stage_bytes import Demand, key_value_bytes, stages_of, workload
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.weights import keymaps
from pigeon_cli.weights.checkpoint import read_part, save_part
from pigeon_cli.weights.official import OfficialFolder
from pigeon_cli.weights.official_spec import BUNDLED_SPEC
from pigeon_cli.weights.packed import EIGHT, SIX
from pigeon_cli.weights.published_alignment import find_alignment
from pigeon_cli.weights.spec_file import read_spec
from pigeon_cli.weights.store import ModelFolder, find_model
from tests.keymaps.official_files import BUILDERS, MANIFEST_OF, manifest, write_model

FLOAT32, BFLOAT16, INT8 = Precision.FLOAT32, Precision.BFLOAT16, Precision.INT8
GB = 10**9


def write_holes(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A bfloat16 file of the right size with nothing but holes behind its header."""
    header, end = {}, 0
    for key, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return read_spec(BUNDLED_SPEC)


@pytest.fixture(scope="module")
def large(spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> OfficialFolder:
    """The 7B model and its alignment at full size, made of holes; the language model in three shards."""
    folder = tmp_path_factory.mktemp("large")
    names = {keymap.files: name for name, keymap in MANIFEST_OF.items()}
    for keymap in keymaps.MODEL_FILES:
        if keymap.files in names:
            shapes = manifest(names[keymap.files])
        else:
            with torch.device("meta"):
                state = BUILDERS[keymap.part](spec).state_dict()
            shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        stem = folder / keymap.files[0]
        if keymap is not keymaps.LANGUAGE:
            write_holes(stem.with_name(f"{stem.name}.safetensors"), shapes)
            continue
        for shard in range(3):
            third = dict(list(shapes.items())[shard::3])
            write_holes(stem.with_name(f"{stem.name}-0000{shard + 1}-of-00003.safetensors"), third)
    aligned = {
        f"{keymap.part}.{key}": shape
        for keymap in keymaps.ALIGNMENT_FILES
        for key, shape in manifest(names[keymap.files]).items()
    }
    write_holes(folder / "alignment.safetensors", aligned)
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    (folder / "pigeon.json").write_text(json.dumps(settings), encoding="utf-8")
    found = OfficialFolder(folder, find_alignment(folder))
    vars(found)["spec"] = spec  # the folder has no configurations to read it from
    return found


def request(spec: ModelSpec, tokens: int = 600, candidates: int = 3) -> Demand:
    return Demand(images=6, tokens=tokens, candidates=candidates, drawn=3, sampling=spec.sampling)


def plan(folder: OfficialFolder, gigabytes: float, demand: Demand) -> Plan:
    choices = {precision: workload(folder, demand, precision) for precision in precisions("auto")}
    return make_plan(choices, int(gigabytes * GB), [Device("cpu", 24 * GB, held=GB * 4 // 10)])


def test_bytes_are_counted_by_hand(tmp_path: Path) -> None:
    tensors = {
        "linear.weight": torch.zeros(6, 4, dtype=torch.float16),
        "linear.bias": torch.zeros(6, dtype=torch.float16),
        "embed_tokens.weight": torch.zeros(5, 4, dtype=torch.float32),
        "time_embedding.linear_1.weight": torch.zeros(2, 3, dtype=torch.bfloat16),
        "convolution.weight": torch.zeros(2, 2, 1, 1, dtype=torch.bfloat16),
        "places": torch.zeros(3, dtype=torch.int64),
        "flags": torch.zeros(7, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "adapter.safetensors")
    (found,) = stored(ModelFolder(tmp_path), "adapter")
    assert found.bytes == 48 + 12 + 80 + 12 + 8 + 24 + 7
    assert (found.linear, found.scales, found.plain, found.other) == (24 + 6, 6 + 2, 6 + 20 + 4, 24 + 7)
    assert found.size(FLOAT32) == 4 * 60 + 31
    assert found.size(BFLOAT16) == 2 * 60 + 31
    assert found.size(INT8) == 30 + 8 * 4 + 2 * 30 + 31
    assert found.kinds == {"F16", "F32", "BF16"}


def test_only_files_whose_bytes_are_not_the_weights_pass_through_memory() -> None:
    half = Stored(20, frozenset({"BF16"}), plain=10)
    assert [half.passing(kind, mapped=False) for kind in (BFLOAT16, FLOAT32, INT8)] == [0, 20, 20]
    assert Stored(20, frozenset({"F16"}), plain=10).passing(BFLOAT16, mapped=False) == 20
    assert Stored(40, frozenset({"F32"}), plain=10).passing(FLOAT32, mapped=True) == 0


def test_of_a_mapped_file_one_tensor_at_a_time_passes_through_memory() -> None:
    both = Stored(20, frozenset({"F16"}), plain=10, largest=14) + Stored(8, frozenset({"F16"}), plain=4, largest=8)
    assert both.passing(BFLOAT16, mapped=True) == 14


@pytest.mark.parametrize("name", ["mini", "official"])
def test_sizes_are_those_of_the_tensors(name: str, tmp_path: Path) -> None:
    folder = find_model("mini") if name == "mini" else OfficialFolder(write_model(tmp_path, ".safetensors", True))
    for part in ("tokenizer", "decoder", "language", "unet", "vae"):
        module = BUILDERS[part](folder.spec)
        # Parameters that are tied are in the file once, as they are in memory.
        seen = {id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()}.values()
        for precision, width in ((FLOAT32, 4), (BFLOAT16, 2), (INT8, 2)):
            if precision is INT8 and part == "language":
                continue
            wanted = sum(tensor.numel() * (width if tensor.is_floating_point() else 8) for tensor in seen)
            assert part_size(folder, part, precision).bytes == wanted, (part, precision)


@pytest.mark.parametrize("bits", [EIGHT, SIX])
def test_packed_tensors_count_as_the_numbers_that_they_become(
    bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pigeon_cli.weights.packed.FEWEST_OF_SIX", 1)
    tensors = {
        "fc1.weight": torch.randn(64, 80),
        "fc1.bias": torch.randn(64),
        "embed_tokens.weight": torch.randn(100, 50),
        "convolution.weight": torch.randn(16, 32, 3, 3),
        "keys": torch.ones(7, 2, dtype=torch.int8),
    }
    folder = ModelFolder(tmp_path)
    save_part(folder.part("language"), tensors, packed=True, bits=bits)
    (found,) = stored(folder, "language")
    linear, plain, convolution = 64 * 80, 100 * 50, 16 * 32 * 9
    assert (found.linear, found.scales, found.plain, found.other) == (linear, 64, 64 + plain + convolution, 14)
    assert found.bytes == (linear + plain + convolution) * bits // 8 + 4 * (64 + 100 + 16) + 2 * 64 + 14
    loaded = read_part(folder.part("language"))
    for precision, kind in ((FLOAT32, torch.float32), (BFLOAT16, torch.bfloat16)):
        held = sum((t.to(kind) if t.is_floating_point() else t).nbytes for t in loaded.values())
        assert part_size(folder, "language", precision).bytes == held
    quantized = part_size(folder, "language", INT8)
    assert quantized.bytes == linear + 4 * 64 + 2 * (64 + plain + convolution) + 14
    passing = found.bytes + 4 * (linear + plain + convolution)
    assert [found.passing(each, mapped=False) for each in (FLOAT32, BFLOAT16, INT8)] == [passing] * 3


def test_a_packed_file_without_other_floating_tensors_is_never_its_own_weights(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    save_part(folder.part("decoder"), {"linear.weight": torch.randn(64, 80)}, packed=True)
    assert all(part_size(folder, "decoder", precision).passing > 0 for precision in (FLOAT32, BFLOAT16))


def test_sizes_of_a_packed_model_are_those_of_its_modules(tmp_path: Path) -> None:
    mini, packed = find_model("mini"), ModelFolder(tmp_path)
    for part in ("tokenizer", "unet", "vae", "language"):
        save_shipped(packed, part, read_part(cast(ModelFolder, mini).part(part)))
        for precision in (FLOAT32, BFLOAT16, INT8):
            assert part_size(packed, part, precision).bytes == part_size(mini, part, precision).bytes, (part, precision)


def test_linear_weights_are_told_from_tables_by_their_names(spec: ModelSpec) -> None:
    with torch.device("meta"):
        model = BUILDERS["language"](spec)
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert {key for key, shape in manifest("language_model").items() if is_linear(key, shape)} == linear


def test_a_pickle_counts_as_a_whole(tmp_path: Path) -> None:
    folder = OfficialFolder(write_model(tmp_path, ".bin"))
    size = (tmp_path / "visual_tokenizer" / "highres_tokenizer_decoder.bin").stat().st_size
    assert stored(folder, "decoder") == [Stored(size, frozenset({"pickle"}), size // 2, largest=size)]
    assert part_size(folder, "decoder", BFLOAT16) == Part("decoder", size // 2 * 2, passing=size)


def test_a_file_that_is_missing_or_no_safetensors_is_named(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    with pytest.raises(WeightsError, match=r"decoder\.safetensors"):
        stored(folder, "decoder")
    folder.part("decoder").write_bytes(b"\xff" * 64)
    with pytest.raises(WeightsError, match=r"decoder\.safetensors"):
        stored(folder, "decoder")


def test_keys_and_values_of_the_7b_model(spec: ModelSpec) -> None:
    assert key_value_bytes(spec.language, 1, 1, 2) == 32 * 2 * 4096 * 2
    # DESIGN.md: a row of 900 tokens holds 0.45 GB, in powers of two 0.44.
    assert key_value_bytes(spec.language, 1, 900, 2) == 471_859_200
    assert key_value_bytes(spec.language, 11, 900, 4) == 22 * 471_859_200


def test_bytes_of_the_7b_language_model(large: OfficialFolder) -> None:
    numbers, table, norms = 6_872_649_728, 48386 * 4096, 65 * 4096
    whole, small = part_size(large, "language", BFLOAT16), part_size(large, "language", INT8)
    assert whole.bytes == 2 * numbers < 16 * GB
    assert whole.passing == 0
    rows = 32 * (4 * 4096 + 2 * 11008 + 4096) + 48386
    assert small.bytes == (numbers - table - norms) + 4 * rows + 2 * (table + norms)
    assert small.bytes == pytest.approx(7 * GB, rel=0.02)
    assert small.passing == 2 * table
    assert part_size(large, "embedding", INT8).bytes == 2 * table
    lora = 4_194_304
    assert part_size(large, "lora", BFLOAT16).bytes == 2 * lora


def test_bytes_of_the_other_7b_parts(large: OfficialFolder) -> None:
    published = {"unet": 5.14, "decoder": 0.83, "tokenizer": 2.03 + 0.808, "vae": 0.335 / 2}
    for name, gigabytes in published.items():
        assert part_size(large, name, INT8).bytes == pytest.approx(gigabytes * GB, rel=3e-3)
    assert part_size(large, "mask_generator", BFLOAT16).bytes == 2 * 101_779_456
    assert part_size(large, "quantizer", BFLOAT16).bytes == 2 * 16384 * 32


def test_16_gb_take_bfloat16_and_less_takes_int8(large: OfficialFolder, spec: ModelSpec) -> None:
    whole = plan(large, 16, request(spec))
    assert whole.precision is BFLOAT16
    assert 15 * GB < whole.peak <= 16 * GB
    assert whole.rows("imagine") == 2
    assert plan(large, 16, request(spec, tokens=1500)).precision is BFLOAT16, "every patch of six images a token"
    assert [step.name for step in whole.steps if step.kind == "load"].count("language") == 1
    less = plan(large, 14.5, request(spec))
    assert less.precision is INT8
    assert less.rows("imagine") == 3
    assert "bfloat16 on cpu needs at least 15" in less.reason


def test_a_budget_that_is_too_small_names_the_one_that_works(large: OfficialFolder, spec: ModelSpec) -> None:
    with pytest.raises(MemoryBudgetError, match="as int8 on cpu") as caught:
        plan(large, 6, request(spec))
    smallest = int(caught.value.hint.split("--max-memory ")[1].split("B")[0])
    assert plan(large, smallest / GB + 1e-9, request(spec)).precision is INT8


def test_stages_follow_the_session_and_say_why(large: OfficialFolder, spec: ModelSpec) -> None:
    bundled = find_model("mini")
    mini = bundled.spec
    demand = replace(request(mini), reference_tokens=90, aligned=False)
    names = [
        "recall",
        "read the images",
        "imagine a reference",
        "mask",
        "slots",
        "imagine",
        "prescore",
        "draw",
        "score",
    ]
    stages = {stage.name: stage for stage in stages_of(bundled, demand, FLOAT32)}
    assert list(stages) == names
    assert all(stage.reason and stage.reserve > 0 for stage in stages.values())
    assert stages["recall"].parts == ("memory", "tokenizer", "taste", "vae"), "a drawing is decoded, nothing is drawn"
    assert stages["imagine"].parts == ("language",)
    assert "base_adapter" in stages["slots"].parts
    published = ["read the images", "mask", "slots", "imagine", "prescore", "draw"]
    kept = {stage.name: stage for stage in stages_of(large, request(spec), BFLOAT16)}
    assert list(kept) == published, "the 7B model has no scorer of its own"
    assert kept["imagine"].parts == ("language", "lora"), "mapped weights are the base's and the aligned model's"
    assert kept["mask"].parts == (), "similarity needs no weights"
    assert [stage.name for stage in stages_of(large, replace(request(spec), drawn=0), BFLOAT16)] == published[:2]
    ranked = replace(large, clip=large.path)
    vars(ranked)["spec"] = spec
    with_clip = list(stages_of(ranked, request(spec), BFLOAT16))
    assert (with_clip[-1].name, with_clip[-1].parts) == ("score", ("clip",))


def test_a_row_holds_all_its_beams_and_the_free_branch_of_guidance(large: OfficialFolder, spec: ModelSpec) -> None:
    def row(beams: int, guidance: float) -> int:
        demand = replace(request(spec), sampling=replace(spec.sampling, beams=beams, guidance=guidance))
        return next(s.row_bytes for s in stages_of(large, demand, BFLOAT16) if s.name == "imagine")

    # Beams share the prompt; what they draw themselves, up to 300 tokens, they have alone.
    assert key_value_bytes(spec.language, 1, 300, 2) < row(1, 1.0) < key_value_bytes(spec.language, 1, 400, 2)
    assert row(4, 1.0) == 4 * row(1, 1.0)
    assert row(4, 3.0) == 4 * row(2, 3.0) // 2 > 8 * key_value_bytes(spec.language, 1, 600, 2)
