"""The planner: by hand arithmetic, and what must hold for any workload and any budget."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys

import pytest

from pigeon_cli.core.errors import MemoryBudgetError, UsageError
from pigeon_cli.engine.plan import Device, Plan, Precision, make_plan, parse_size, precisions
from pigeon_cli.engine.schedule import Part, Stage, Workload

CPU = Device("cpu", 10**12)
SMALL = Workload(
    (Part("a", 5), Part("b", 3), Part("c", 2)),
    (Stage("one", ("a",)), Stage("two", ("b",)), Stage("three", ("c",)), Stage("four", ("a", "c"))),
)


def plan(work: Workload, budget: int, device: Device = CPU) -> Plan:
    return make_plan({Precision.BFLOAT16: work}, budget, [device])


def told(planned: Plan) -> list[str]:
    return [f"{step.kind} {step.name} {step.resident}" for step in planned.steps]


def smallest_in(error: MemoryBudgetError) -> int:
    found = re.search(r"--max-memory (\d+B) or more", error.hint)
    assert found
    return parse_size(found[1])


def test_what_fits_side_by_side_stays() -> None:
    assert told(plan(SMALL, 10)) == [
        "load a 5", "run one 5", "load b 8", "run two 8", "load c 10", "run three 10", "run four 10",
    ]  # fmt: skip


def test_a_part_that_is_used_again_stays_as_long_as_it_fits() -> None:
    assert told(plan(SMALL, 8)) == [
        "load a 5", "run one 5", "load b 8", "run two 8", "evict b 5", "load c 7", "run three 7", "run four 7",
    ]  # fmt: skip


def test_a_part_without_room_is_loaded_again() -> None:
    planned = plan(SMALL, 7)
    assert told(planned) == [
        "load a 5", "run one 5", "evict a 0", "load b 3", "run two 3", "evict b 0", "load c 2", "run three 2",
        "load a 7", "run four 7",
    ]  # fmt: skip
    assert (planned.loads, planned.peak) == (4, 7)


def test_of_two_parts_the_larger_stays() -> None:
    parts = (Part("large", 6), Part("small", 4), Part("other", 3))
    stages = (Stage("one", ("large", "small")), Stage("two", ("other",)), Stage("three", ("small", "large")))
    assert [step.name for step in plan(Workload(parts, stages), 10).steps if step.kind == "evict"] == ["small", "other"]


def test_rows_come_before_parts_that_wait() -> None:
    parts = (Part("model", 10), Part("eyes", 4))
    work = Workload(
        parts,
        (Stage("see", ("eyes",)), Stage("draw", ("model",), reserve=1, rows=3, row_bytes=2), Stage("look", ("eyes",))),
    )
    rows = {budget: plan(work, budget).rows("draw") for budget in (13, 14, 15, 16, 17, 20, 21, 30)}
    assert rows == {13: 1, 14: 1, 15: 2, 16: 2, 17: 3, 20: 3, 21: 3, 30: 3}
    assert [plan(work, budget).loads for budget in (17, 20, 21)] == [3, 3, 2]


def test_files_that_pass_through_memory_count_except_on_a_cuda_device() -> None:
    work = Workload((Part("a", 5, passing=4),), (Stage("one", ("a",), reserve=1),))
    assert [(step.resident, step.peak) for step in plan(work, 9).steps] == [(5, 9), (5, 6)]
    with pytest.raises(MemoryBudgetError):
        plan(work, 8)
    assert plan(work, 6, Device("cuda:0", 100)).peak == 6


def test_what_the_process_holds_counts() -> None:
    planned = plan(SMALL, 10, Device("cpu", 100, held=3))
    assert planned.peak == 10
    assert planned.steps[0].resident == 8


def test_the_first_precision_and_device_that_fit_are_taken_and_the_reason_names_the_others() -> None:
    half = Workload((Part("a", 60),), (Stage("one", ("a",)),))
    quarter = Workload((Part("a", 30),), (Stage("one", ("a",)),))
    choices = {Precision.BFLOAT16: half, Precision.INT8: quarter}
    card, main = Device("cuda", 40), Device("cpu", 100)
    first = make_plan(choices, None, [card, main])
    assert (first.device, first.precision, first.budget) == ("cuda", Precision.INT8, 40)
    assert "bfloat16 on cuda needs at least 60 bytes, 40 bytes may be used" in first.reason
    second = make_plan({Precision.BFLOAT16: half}, None, [card, main])
    assert (second.device, second.precision) == ("cpu", Precision.BFLOAT16)
    assert make_plan(choices, 59, [main]).precision is Precision.INT8
    assert make_plan(choices, 60, [main]).precision is Precision.BFLOAT16


def test_a_machine_that_is_too_small_is_not_told_to_raise_the_budget() -> None:
    with pytest.raises(MemoryBudgetError, match=r"7B \(7 bytes\) as bfloat16") as caught:
        plan(SMALL, 5, Device("cpu", 6))
    assert "--max-memory" not in caught.value.hint
    assert "--quantize int8" in caught.value.hint
    assert caught.value.exit_code == 4


def some_workload(seed: int) -> Workload:
    chance = random.Random(seed)
    names = "abcdef"
    parts = tuple(Part(name, chance.randint(1, 40), chance.choice((0, chance.randint(1, 20)))) for name in names)
    stages = []
    for number in range(7):
        used = tuple(chance.sample(names, chance.randint(1, 3)))
        rows = chance.choice((0, 0, 5))
        stages.append(Stage(f"stage {number}", used, chance.randint(0, 9), rows, chance.randint(1, 9) if rows else 0))
    return Workload(parts, tuple(stages))


def check_steps(planned: Plan, work: Workload, held: int) -> None:
    """Carry the plan out with a calculator."""
    present: set[str] = set()
    stages = list(work.stages)
    for step in planned.steps:
        extra = 0
        if step.kind == "load":
            assert step.name not in present
            present.add(step.name)
            extra = work.by_name[step.name].passing
        elif step.kind == "evict":
            extra = work.by_name[step.name].bytes
            present.remove(step.name)
        else:
            stage = stages.pop(0)
            assert step.name == stage.name
            assert present >= set(stage.parts)
            assert min(1, stage.rows) <= step.rows <= stage.rows
            extra = stage.reserve + step.rows * stage.row_bytes
        assert step.resident == held + sum(work.by_name[name].bytes for name in present)
        assert step.peak == step.resident + extra <= planned.budget
    assert not stages


@pytest.mark.parametrize("seed", range(12))
def test_every_plan_can_be_carried_out_and_more_memory_never_costs_loads_or_rows(seed: int) -> None:
    work, device = some_workload(seed), Device("cpu", 10**6, held=7)
    with pytest.raises(MemoryBudgetError) as caught:
        plan(work, 8, device)
    smallest = smallest_in(caught.value)
    with pytest.raises(MemoryBudgetError):
        plan(work, smallest - 1, device)
    everything = sum(part.bytes for part in work.parts) + 7 + 60
    plans = [plan(work, budget, device) for budget in range(smallest, everything + 1)]
    for planned in plans:
        check_steps(planned, work, held=7)
    for tighter, wider in itertools.pairwise(plans):
        assert wider.loads <= tighter.loads
        assert all(wider.rows(stage.name) >= tighter.rows(stage.name) for stage in work.stages)
    used = {name for stage in work.stages for name in stage.parts}
    assert plans[-1].loads == len(used)
    assert not [step for step in plans[-1].steps if step.kind == "evict"]


def test_a_plan_reads_as_a_table_and_as_json() -> None:
    planned = plan(Workload((Part("a", 5 * 10**9),), (Stage("one", ("a",), 10**9, 2, 10**9),)), 7 * 10**9)
    assert planned.table() == [("load", "a", "5 GB", "5 GB", ""), ("run", "one", "5 GB", "7 GB", "1")]
    data = json.loads(json.dumps(planned.as_json()))
    assert (data["precision"], data["peak"], data["loads"], data["budget"]) == ("bfloat16", 7 * 10**9, 1, 7 * 10**9)
    run = {"kind": "run", "name": "one", "resident": 5 * 10**9, "peak": 7 * 10**9, "rows": 1}
    assert data["steps"][1] == run


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16GB", 16 * 10**9),
        ("16GiB", 16 * 2**30),
        ("900MB", 900 * 10**6),
        ("1.5 gb", 1_500_000_000),
        ("512kib", 512 * 1024),
        ("2TB", 2 * 10**12),
        ("7B", 7),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "16", "GB", "0GB", "0.1B", "-1GB", "16 G", "1e9B", "16GBs", "\u0661\u0666GB"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no size of memory"):
        parse_size(text)


def test_auto_tries_bfloat16_then_int8_and_what_was_asked_for_is_all_that_is_tried() -> None:
    assert precisions("auto") == (Precision.BFLOAT16, Precision.INT8)
    assert precisions("auto", "none") == (Precision.BFLOAT16,)
    assert precisions("float32") == (Precision.FLOAT32,)
    assert precisions("bfloat16", "int8") == precisions("auto", "int8") == (Precision.INT8,)
    with pytest.raises(UsageError, match="not in float32"):
        precisions("float32", "int8")


def test_planning_needs_no_torch() -> None:
    modules = "pigeon_cli.engine.plan, pigeon_cli.engine.stage_bytes"
    code = f"import sys, {modules}; assert not {{'torch', 'diffusers', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
