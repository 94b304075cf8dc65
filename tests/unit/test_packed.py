"""Large matrices as int8 with a scale a row: by hand, and through files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.engine.residency import ALIGNED, Parts
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.weights.checkpoint import load_part, read_part, save_part
from pigeon_cli.weights.packed import FEWEST_NUMBERS, FEWEST_OF_SIX, SIX, pack, unpack
from pigeon_cli.weights.scales import scale_of, unpacked_shape
from pigeon_cli.weights.store import ModelFolder
from tests.small_memory import small_memory
from tests.tiny_model import write_tiny_model

WIDTH = FEWEST_NUMBERS // 4


def there_and_back(tensor: Tensor) -> Tensor:
    return unpack(pack({"weight": tensor}, torch.bfloat16))["weight"]


def test_levels_and_scales_are_those_computed_by_hand() -> None:
    rows = torch.zeros(4, WIDTH)
    rows[0, :3] = torch.tensor([127.0, -3.0, 0.4])
    rows[1, :3] = torch.tensor([-127 / 64, 5 / 64, 0.0])
    rows[3, :2] = torch.tensor([254.0, 2.0])
    packed = pack({"weight": rows}, torch.bfloat16)
    assert packed["weight"].dtype == torch.int8
    assert packed["weight"][:, :3].tolist() == [[127, -3, 0], [-127, 5, 0], [0, 0, 0], [127, 1, 0]]
    scales = packed[scale_of("weight")]
    assert (scales.dtype, scales.shape) == (torch.float32, (4,))
    assert scales[[0, 1, 3]].tolist() == [1, 1 / 64, 2]
    rows[0, 2] = 0
    assert torch.equal(there_and_back(rows), rows)


def test_errors_are_at_most_half_a_level_where_nothing_is_cut() -> None:
    torch.manual_seed(0)
    # Evenly spread numbers gain nothing from a smaller scale.
    rows = torch.rand(8, 3, WIDTH) * torch.logspace(-6, 3, 8)[:, None, None]
    level = rows.amax((1, 2), keepdim=True) / 127
    assert ((there_and_back(rows) - rows).abs() <= level * 0.5001).all()


def test_one_large_number_is_cut_where_all_others_gain() -> None:
    torch.manual_seed(0)
    rows = torch.randn(1, 64 * WIDTH).clamp(-3, 3)
    rows[0, 0] = 4
    packed = pack({"weight": rows}, torch.bfloat16)
    level = 4 / 127
    assert packed[scale_of("weight")].item() < level
    assert packed["weight"][0, 0] == 127
    uncut = (rows / level).round() * level
    assert (there_and_back(rows) - rows).square().sum() < (uncut - rows).square().sum()


def test_packing_again_changes_nothing() -> None:
    torch.manual_seed(0)
    once = there_and_back(torch.randn(64, 100))
    assert torch.allclose(there_and_back(once), once, rtol=1e-6, atol=0)


@pytest.fixture
def all_of_six(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pigeon_cli.weights.packed.FEWEST_OF_SIX", 1)


@pytest.mark.usefixtures("all_of_six")
def test_six_bits_are_those_computed_by_hand_and_come_back() -> None:
    rows = torch.zeros(4, WIDTH)
    rows[:, 0] = torch.tensor([31.0, -31.0, 62.0, 31 / 4])
    rows[:, 1] = torch.tensor([1.0, -2.0, 6.0, -5 / 4])
    packed = pack({"weight": rows}, torch.bfloat16, bits=SIX)
    assert (packed["weight"].dtype, packed["weight"].shape) == (torch.uint8, (3, WIDTH))
    assert packed[scale_of("weight")].tolist() == [1, 1, 2, 1 / 4]
    # 63, 1, 63, 63 and 33, 30, 35, 27, six bits each, the first lowest.
    for place, levels in enumerate(((63, 1, 63, 63), (33, 30, 35, 27))):
        number = sum(level << 6 * row for row, level in enumerate(levels))
        assert packed["weight"][:, place].tolist() == [number >> 8 * byte & 255 for byte in range(3)]
    assert torch.equal(unpack(packed)["weight"], rows)
    assert unpacked_shape("U8", [3, WIDTH]) == [4, WIDTH] and unpacked_shape("I8", [3, 5]) == [3, 5]


@pytest.mark.usefixtures("all_of_six")
def test_six_bits_keep_every_level_of_any_shape() -> None:
    torch.manual_seed(0)
    levels = torch.randint(-31, 32, (8, 64, 3, 3)).float()
    levels[:, 0, 0, 0] = 31
    assert torch.equal(unpack(pack({"weight": levels}, torch.bfloat16, bits=SIX))["weight"], levels)
    normal = torch.randn(64, 256)
    once = unpack(pack({"weight": normal}, torch.bfloat16, bits=SIX))["weight"]
    assert float((once - normal).square().mean()) < 0.001
    assert torch.allclose(unpack(pack({"weight": once}, torch.bfloat16, bits=SIX))["weight"], once, rtol=1e-6, atol=0)


def test_few_numbers_and_rows_that_four_does_not_divide_stay_eight_bits() -> None:
    width = FEWEST_OF_SIX // 4
    tensors = {f"{rows}.weight": torch.randn(rows, width) for rows in (3, 4, 5)}
    packed = pack(tensors, torch.bfloat16, bits=SIX)
    assert [packed[name].dtype for name in tensors] == [torch.int8, torch.uint8, torch.int8]
    assert {tensor.dtype for tensor in pack(tensors, torch.bfloat16).values()} == {torch.int8, torch.float32}


@pytest.mark.usefixtures("all_of_six")
def test_six_bits_whose_rows_are_no_whole_number_are_named() -> None:
    packed = pack({"weight": torch.randn(8, WIDTH)}, torch.bfloat16, bits=SIX)
    with pytest.raises(ValueError, match="no whole number of 3 rows"):
        unpack(packed | {"weight": packed["weight"][:5]})
    with pytest.raises(ValueError, match=r"holds weight\.scale as \(8,\)"):
        unpack(packed | {"weight": packed["weight"][:3]})


def test_a_row_that_is_not_finite_does_not_come_back_as_numbers() -> None:
    rows = torch.ones(4, WIDTH)
    rows[1, 5], rows[2, 5] = torch.nan, torch.inf
    assert there_and_back(rows).isfinite().all(1).tolist() == [True, False, False, True]


def test_only_large_floating_matrices_are_packed() -> None:
    tensors = {
        "convolution.weight": torch.randn(16, 32, 3, 3),
        "small.weight": torch.randn(3, WIDTH),
        "long.bias": torch.randn(4 * WIDTH),
        "codebook.weight": torch.randn(4, WIDTH),
        "places": torch.zeros(4, WIDTH, dtype=torch.int64),
        "keys": torch.zeros(4, WIDTH, dtype=torch.int8),
    }
    packed = pack(tensors, torch.float16, exact=["codebook.weight"])
    assert packed.keys() == tensors.keys() | {"convolution.weight.scale"}
    kinds = [packed[name].dtype for name in tensors]
    assert kinds == [torch.int8, *[torch.float16] * 3, torch.int64, torch.int8]
    back = unpack(packed)
    assert {name: tensor.shape for name, tensor in back.items()} == {name: t.shape for name, t in tensors.items()}
    assert back["convolution.weight"].dtype == torch.float32
    assert torch.equal(back["codebook.weight"], tensors["codebook.weight"].half())
    with pytest.raises(ValueError, match="quantizer"):
        pack(tensors, torch.float16, exact=["quantizer"])


def test_a_module_comes_back_from_a_packed_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Conv2d(16, 32, 3), nn.LayerNorm(8), nn.Linear(64, 80)) for _ in range(2))
    path = tmp_path / "part.safetensors"
    save_part(path, first.state_dict(), torch.float32, packed=True, exact=["2.weight"])
    assert load_file(path)["0.weight"].dtype == torch.int8
    load_part(second, path)
    for name, tensor in first.state_dict().items():
        wanted = there_and_back(tensor) if name == "0.weight" else tensor
        assert torch.equal(second.state_dict()[name], wanted), name


def test_a_part_of_a_packed_file_is_read_by_the_start_of_its_keys(tmp_path: Path) -> None:
    first, second, path = nn.Linear(64, 80), nn.Linear(64, 80), tmp_path / "part.safetensors"
    tensors = {f"{side}.{key}": tensor for side in "ab" for key, tensor in first.state_dict().items()}
    save_part(path, tensors, packed=True)
    assert read_part(path, "a.").keys() == {"a.weight", "a.bias"}
    load_part(second, path, start="a.")
    assert torch.equal(second.weight, there_and_back(first.weight))


def test_a_memory_keeps_its_own_int8(tmp_path: Path) -> None:
    memory = small_memory(2, 1, [(0, 0)])
    memory.keys.fill_(5)
    save_part(tmp_path / "memory.safetensors", memory.state_dict())
    assert torch.equal(read_part(tmp_path / "memory.safetensors")["keys"], memory.keys)


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ({"a.weight.scale": torch.ones(4)}, "a.weight.scale"),
        ({"a.weight": torch.ones(4, 2), "a.weight.scale": torch.ones(4)}, "a.weight.scale"),
        ({"a.weight": torch.ones(4, 2, dtype=torch.int8), "a.weight.scale": torch.ones(3)}, "a.weight.scale"),
        ({"a.weight": torch.ones(4, 2, dtype=torch.int8), "a.weight.scale": torch.ones(4, 2)}, "a.weight.scale"),
    ],
    ids=["no levels", "levels of another type", "another length", "another form"],
)
def test_scales_without_their_levels_are_refused(tmp_path: Path, tensors: dict[str, Tensor], named: str) -> None:
    save_file(tensors, tmp_path / "unet.safetensors")
    with pytest.raises(WeightsError, match=rf"unet\.safetensors .*{named}"):
        read_part(tmp_path / "unet.safetensors")


def test_levels_without_their_scales_are_no_weights(tmp_path: Path) -> None:
    layer, path = nn.Linear(64, 80), tmp_path / "unet.safetensors"
    save_part(path, layer.state_dict(), packed=True)
    tensors = load_file(path)
    del tensors[scale_of("weight")]
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=r"unet\.safetensors holds weight as torch\.int8"):
        load_part(layer, path)


def test_levels_of_an_adapter_without_their_scales_are_no_weights(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    tensors = {key: tensor.to(torch.int8) for key, tensor in read_part(folder.part("lora")).items()}
    save_file(tensors, folder.part("lora"))
    with pytest.raises(WeightsError, match=r"lora\.safetensors"), Parts(folder, choose_device("cpu")).use(ALIGNED):
        pass


def test_stages_ship_matrices_packed_and_the_codebook_exact(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    names = ("quantizer.embedding.weight", "task_layer.0.weight", "task_layer.2.weight")
    tensors = {name: torch.randn(64, 64) for name in names}
    kinds = {}
    for part in ("tokenizer", "unet", "adapter"):
        save_shipped(folder, part, tensors)
        kinds[part] = [load_file(folder.part(part))[name].dtype for name in names]
    assert kinds["tokenizer"] == [torch.float16, torch.float16, torch.int8]
    assert kinds["unet"] == [torch.int8] * 3
    assert kinds["adapter"] == [torch.bfloat16] * 3
    save_shipped(folder, "unet", {"conv.weight": torch.randn(4, FEWEST_OF_SIX // 4)})
    assert load_file(folder.part("unet"))["conv.weight"].dtype == torch.uint8
