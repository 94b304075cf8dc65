"""The work that the CUDA tests measure, on a CPU and a tiny model, so that it is known to run where no GPU is."""

from __future__ import annotations

import pytest
import torch

from tests.gpu.stages import BUILDERS, WORKS, Load, build, run

TINY = Load(images=2, tokens=3, prompt=7, rows=2, drawn=4, steps=1)


@pytest.mark.parametrize("part", BUILDERS)
def test_a_part_computes_in_bfloat16(part: str) -> None:
    pytest.importorskip("diffusers")
    from tests.keymaps.official_files import tiny_spec

    spec = tiny_spec()
    module = build(part, spec, torch.device("cpu"), torch.bfloat16)
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.bfloat16}
    for work in WORKS[part].values():
        run(work, module, spec, TINY)


def test_no_part_is_left_out() -> None:
    pytest.importorskip("diffusers")
    from tests.keymaps import official_files

    assert BUILDERS.keys() == WORKS.keys() == official_files.BUILDERS.keys()
