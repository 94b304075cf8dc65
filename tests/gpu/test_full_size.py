"""Every part of the 7B model in its own shapes on a CUDA device: it computes, how long that takes, and in how much.

Weights are made on the spot, so nothing is downloaded. The figures are printed after the tests (``pytest -m gpu -q``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.weights.official_spec import BUNDLED_SPEC
from pigeon_cli.weights.spec_file import read_spec
from tests.gpu.stages import BUILDERS, WORKS, Load, build, run

pytestmark = pytest.mark.gpu
NEEDS_DIFFUSERS = ("unet", "vae")
GIGABYTE = 1e9
Note = Callable[[str], None]


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return read_spec(BUNDLED_SPEC)


def measured(work: Callable[[], Any], device: torch.device) -> tuple[Any, str]:
    """What ``work`` returns, with its seconds and the most bytes that tensors took meanwhile."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    result = work()
    torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    return result, f"{seconds:8.3f} s {torch.cuda.max_memory_allocated(device) / GIGABYTE:7.2f} GB"


def run_all(part: str, kind: str, module: Any, spec: ModelSpec, device: torch.device, note: Note) -> None:
    """Everything that ``part`` does, twice: the first time also loads libraries and chooses kernels."""
    for name, work in WORKS[part].items():
        run(work, module, spec, Load())
        _, figures = measured(lambda work=work: run(work, module, spec, Load()), device)
        note(f"{part:<15} {kind:<9} {name:<16} {figures}")


@pytest.fixture(autouse=True)
def _empty_device(cuda: torch.device) -> None:
    """One part at a time; what an earlier test left in torch's own store goes back first."""
    torch.cuda.empty_cache()


@pytest.mark.parametrize("part", BUILDERS)
def test_a_part_computes_in_bfloat16(part: str, spec: ModelSpec, cuda: torch.device, note: Note) -> None:
    if part in NEEDS_DIFFUSERS:
        pytest.importorskip("diffusers")
    module, figures = measured(lambda: build(part, spec, cuda, torch.bfloat16), cuda)
    note(f"{part:<15} {'bfloat16':<9} {'make weights':<16} {figures}")
    run_all(part, "bfloat16", module, spec, cuda, note)


def test_the_language_model_computes_in_int8(spec: ModelSpec, cuda: torch.device, note: Note) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    module = build("language", spec, cuda, torch.bfloat16)
    whole = torch.cuda.memory_allocated(cuda)
    _, figures = measured(lambda: quantization.quantize_(module, quantization.Int8WeightOnlyConfig()), cuda)
    assert torch.cuda.memory_allocated(cuda) < 0.6 * whole
    note(f"{'language':<15} {'int8':<9} {'quantize':<16} {figures}")
    run_all("language", "int8", module, spec, cuda, note)
