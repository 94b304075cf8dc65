"""Parts by a plan: loaded and evicted when it says so, what is evicted is gone, and each precision computes."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from pigeon_cli.core.configs import LanguageConfig
from pigeon_cli.core.errors import MemoryBudgetError, UsageError
from pigeon_cli.engine.conversion import KINDS, check_quantizer, convert, trim
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.engine.memory import USABLE, WORKSPACE, measure
from pigeon_cli.engine.plan import Device, Plan, Precision
from pigeon_cli.engine.residency import ALIGNED, BASE, EMBEDDING, LORA, QUANTIZER, TOKENIZER, Parts
from pigeon_cli.engine.schedule import Step
from pigeon_cli.models.quantized import PACKED_ROWS, Int8Linear
from pigeon_cli.pipeline.planning import Budget
from pigeon_cli.pipeline.session import Session
from pigeon_cli.weights import keymaps
from pigeon_cli.weights.official import OfficialFolder
from pigeon_cli.weights.store import find_model
from tests.keymaps.official_files import shapes_of
from tests.published_model import write_published

STATUS = Path("/proc/self/status")
CPU = choose_device("cpu")
SMALL = Budget(max_memory=10**9)
ALPHA_OVER_RANK = 2.0


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> OfficialFolder:
    found = find_model(os.fspath(write_published(tmp_path_factory.mktemp("published"))))
    assert isinstance(found, OfficialFolder)
    return found


def by_hand(precision: Precision, *steps: tuple[str, str]) -> Plan:
    taken = tuple(Step(kind, name, 0, 0, rows=1) for kind, name in steps)  # type: ignore[arg-type]
    return Plan("cpu", precision, 0, taken, "by hand")


def following(model: OfficialFolder, precision: Precision, *steps: tuple[str, str]) -> Parts:
    parts = Parts(model, CPU)
    parts.follow(by_hand(precision, *steps), CPU)
    return parts


def test_steps_are_taken_when_their_stage_begins(published: OfficialFolder) -> None:
    parts = following(
        published, Precision.BFLOAT16,
        ("load", "tokenizer"), ("run", "see"), ("evict", "tokenizer"), ("load", "quantizer"), ("load", "lora"),
        ("run", "draw"),
    )  # fmt: skip
    parts.enter("open the images")
    assert parts.resident == ()
    parts.enter("see")
    assert parts.resident == ("tokenizer",)
    with parts.use(TOKENIZER) as tokenizer, parts.use(QUANTIZER) as inside:
        assert inside is tokenizer.quantizer
        book = inside.embedding.weight.clone()
        del tokenizer, inside
    parts.enter("draw")
    assert parts.resident == ("quantizer", "lora")
    with parts.use(QUANTIZER) as alone:
        assert torch.equal(alone.embedding.weight, book)
    assert parts.rows("draw", 8) == 1


def test_a_piece_is_read_without_the_rest_of_its_part(published: OfficialFolder) -> None:
    parts = following(published, Precision.BFLOAT16, ("load", "embedding"), ("run", "mask"))
    parts.enter("mask")
    with parts.use(EMBEDDING) as table, Parts(published, CPU).use(BASE) as whole:
        assert torch.equal(table.weight.float(), whole.get_input_embeddings().weight)


def test_a_lora_beside_the_model_is_the_lora_folded_in(published: OfficialFolder) -> None:
    parts = following(published, Precision.FLOAT32, ("load", "language"), ("load", "lora"), ("run", "imagine"))
    parts.enter("imagine")
    ids = torch.arange(40).unsqueeze(0)
    with torch.no_grad(), parts.language(aligned=False) as model, parts.use(LORA) as lora:
        folded = deepcopy(model)
        for name in lora.targets:
            first, second = (lora.get_submodule(f"base_model.model.{name}.lora_{side}").weight for side in "AB")
            folded.get_submodule(name).weight += ALPHA_OVER_RANK * second @ first
        base = model(input_ids=ids).logits
        with parts.language(aligned=True) as aligned:
            assert aligned is model
            changed = aligned(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits, base), "nothing of the LoRA is left behind"
        assert not torch.allclose(changed, base, atol=1e-2)
        assert torch.allclose(changed, folded(input_ids=ids).logits, atol=1e-4 * float(changed.abs().max()))


def test_rotary_frequencies_keep_their_type(published: OfficialFolder) -> None:
    parts = following(published, Precision.BFLOAT16, ("load", "language"), ("run", "imagine"))
    parts.enter("imagine")
    with parts.use(BASE) as model:
        kinds = {name: tensor.dtype for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    assert {kind for name, kind in kinds.items() if name.endswith("inv_freq")} == {torch.float32}
    assert {kind for name, kind in kinds.items() if not name.endswith("inv_freq")} == {torch.bfloat16}


@pytest.mark.parametrize(("rows", "inner", "outer"), [(1, 64, 96), (3, 64, 66), (PACKED_ROWS + 1, 64, 66), (2, 40, 33)])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_int8_layers_are_near_the_exact_ones(rows: int, inner: int, outer: int, kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, values = torch.randn(outer, inner, generator=generator), torch.randn(rows, inner, generator=generator)
    bias = torch.randn(outer, generator=generator)
    found = Int8Linear(weight, bias, kind)(values.to(kind)).float()
    exact = functional.linear(values, weight, bias)
    assert found.shape == exact.shape
    assert float((found - exact).abs().max()) < 0.03 * float(exact.abs().max())


def test_only_linear_layers_of_the_language_model_are_quantized(published: OfficialFolder) -> None:
    parts = following(
        published, Precision.INT8, ("load", "language"), ("load", "tokenizer"), ("load", "lora"), ("run", "all")
    )
    parts.enter("all")
    with parts.use(BASE) as model, parts.use(TOKENIZER) as tokenizer, parts.use(LORA) as lora:
        assert not [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        assert isinstance(model.lm_head, Int8Linear)
        assert model.get_input_embeddings().weight.dtype == torch.bfloat16
        assert not [name for name, each in tokenizer.named_modules() if isinstance(each, Int8Linear)]
        assert {tensor.dtype for tensor in lora.parameters()} == {KINDS[Precision.INT8]}


def test_nf4_needs_cuda() -> None:
    with pytest.raises(UsageError, match="CUDA only"):
        check_quantizer(Precision.NF4, "cpu")
    check_quantizer(Precision.INT8, "cpu")


def resident(kind: str = "VmRSS") -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


@pytest.fixture
def large(published: OfficialFolder, tmp_path: Path) -> Callable[[torch.dtype], OfficialFolder]:
    """A model whose language model weighs 60 MB, in a type of choice."""

    def make(kind: torch.dtype) -> OfficialFolder:
        language = LanguageConfig(1024, 2816, 2, 8, lora_rank=3, lora_alpha=6)
        model = OfficialFolder(tmp_path / str(kind), published.alignment)
        vars(model)["spec"] = replace(published.spec, language=language)
        path = model.path / "language_model" / "model.safetensors"
        path.parent.mkdir(parents=True)
        shapes = shapes_of(keymaps.LANGUAGE.part, model.spec)
        save_file({key: torch.full(shape, 0.01, dtype=kind) for key, shape in shapes.items()}, path)
        return model

    return make


@pytest.mark.skipif(not STATUS.is_file(), reason="memory is read off /proc")
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_what_is_evicted_leaves_memory_and_nothing_is_there_twice(
    large: Callable[[torch.dtype], OfficialFolder], kind: torch.dtype
) -> None:
    model = large(kind)
    size = sum(path.stat().st_size for path in model.path.rglob("*.safetensors"))
    ids = torch.arange(9).unsqueeze(0)
    # What libraries take when they first work, and keep, is no weights: the second time counts.
    for _ in range(2):
        parts = following(
            model, Precision.BFLOAT16, ("load", "language"), ("run", "one"), ("evict", "language"), ("run", "two")
        )
        # What other tests have freed would go meanwhile.
        gc.collect()
        trim()
        before = resident()
        parts.enter("one")
        with torch.no_grad(), parts.use(BASE) as module:
            module(input_ids=ids)
            del module
        used = resident() - before
        parts.enter("two")
        left = resident() - before
    assert 0.7 * size < used < 1.5 * size
    assert left < 0.4 * size
    assert str(model.path) not in Path("/proc/self/maps").read_text(encoding="utf-8")


VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


@pytest.mark.skipif(not STATUS.is_file(), reason="memory is read off /proc")
@pytest.mark.parametrize(
    ("line", "root", "names"),
    [("0::/user/pigeon", "", VERSION_2), ("4:memory:/user/pigeon", "memory", VERSION_1)],
    ids=["version 2", "version 1"],
)
@pytest.mark.parametrize("limited", ["user/pigeon", "user", ""])
def test_the_tightest_control_group_on_the_way_up_bounds_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, root: str, names: tuple[str, ...], limited: str
) -> None:
    (tmp_path / "cgroup").write_text(f"9:cpu:/elsewhere\n{line}\n")
    (tmp_path / "meminfo").write_text("MemAvailable: 50000000 kB\n")
    for place in ("", "user", "user/pigeon", "user/other"):
        group = tmp_path / "groups" / root / place
        group.mkdir(parents=True, exist_ok=True)
        limit = {limited: "9000000000", "user/other": "5"}.get(place, "max" if root == "" else str(2**63 - 4096))
        for name, text in zip(
            (*names[:2], "memory.stat"), (limit, "3000000000", f"{names[2]} 1000000000"), strict=True
        ):
            (group / name).write_text(f"{text}\n")
    for name, path in {"_OWN_GROUPS": "cgroup", "_SYSTEM": "meminfo", "_CONTROL_GROUPS": "groups"}.items():
        monkeypatch.setattr(f"pigeon_cli.engine.memory.{name}", tmp_path / path)
    assert measure(torch.device("cpu")).free == int(USABLE * 7 * 10**9) - WORKSPACE
    # A container without a name space of its own sees the path of the host.
    (tmp_path / "cgroup").write_text(line.replace("/user", "/docker/0123/user"))
    found = measure(torch.device("cpu")).free
    assert found == int(USABLE * (7 * 10**9 if limited == "" else 50000000 * 1024)) - WORKSPACE


def test_conversion_leaves_what_is_right_alone() -> None:
    layer = nn.Linear(4, 4)
    before = layer.weight.data_ptr()
    convert(layer, Precision.FLOAT32, torch.device("cpu"), quantized=True, mapped=False)
    assert layer.weight.data_ptr() == before


@pytest.fixture
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (56, 56, 3), dtype=np.uint8)) for _ in range(6)]


def smallest_budget(model: OfficialFolder) -> int:
    """Bytes that five images, a reference and one try need at least in bfloat16, whatever the images hold."""
    with pytest.raises(MemoryBudgetError) as caught:
        Session(model, CPU, Budget(1, "bfloat16")).plan(5, True, "red fox", dials=[0.5])
    return int(caught.value.hint.split("--max-memory ")[1].split("B")[0])


def test_a_tight_plan_draws_what_a_roomy_one_draws(
    published: OfficialFolder, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pigeon_cli.pipeline.planning.measure", lambda device: Device("cpu", 10**9))
    roomy = Session(published, CPU, SMALL)
    drawn = roomy.personalize(images[:5], images[5], "red fox", dials=[0.5], steps=1)
    assert drawn.plan is not None and not [step for step in drawn.plan.steps if step.kind == "evict"]
    least = smallest_budget(published)
    tight = Session(published, CPU, Budget(least, "bfloat16"))
    again = tight.personalize(images[:5], images[5], "red fox", dials=[0.5], steps=1)
    assert again.plan is not None and [step.name for step in again.plan.steps if step.kind == "evict"]
    assert again.plan.peak <= least
    assert [each.codes for each in again.candidates] == [each.codes for each in drawn.candidates]
    assert again.images[0].tobytes() == drawn.images[0].tobytes()


def count_parts(session: Session, total: int, patch: pytest.MonkeyPatch) -> None:
    """A machine of ``total`` bytes on which nothing takes memory but the parts of ``session``."""

    def measured(device: torch.device) -> Device:
        modules = [cast(nn.Module, session.parts._resident[name]) for name in session.parts.resident]
        held = sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())
        return Device(device.type, total - held, held)

    patch.setattr("pigeon_cli.pipeline.planning.measure", measured)


def test_longer_images_than_usual_are_planned_for_again(
    published: OfficialFolder, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pigeon_cli.pipeline.planning.measure", lambda device: Device("cpu", 10**9))
    session = Session(published, CPU)
    peaks = []
    for share in (0.0, 1.0):
        monkeypatch.setattr("pigeon_cli.pipeline.planning.EXPECTED_SHARE", share)
        outcome = session.personalize(images[:5], images[5], "red fox", dials=[0.5], steps=1)
        assert outcome.plan is not None
        peaks.append(outcome.plan.peak)
        longest = max(len(mask.codes) for mask in outcome.history_tokens)
    assert longest > 0
    monkeypatch.setattr("pigeon_cli.pipeline.planning.EXPECTED_SHARE", longest / 16)
    assert session.plan(5, True, "red fox", dials=[0.5], steps=1).peak == peaks[0] <= peaks[1]


def test_out_of_memory_the_next_smaller_plan_is_tried_and_told(
    published: OfficialFolder, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pigeon_cli.pipeline.planning.measure", lambda device: Device("cpu", 10**9))
    monkeypatch.setattr("pigeon_cli.pipeline.planning.EXPECTED_SHARE", 1.0)
    session = Session(published, CPU)
    peaks: list[int] = []
    whole = session._personalize

    def fails_twice(*arguments: object) -> object:
        assert session.parts.plan is not None
        peaks.append(session.parts.plan.peak)
        if len(peaks) < 3:
            raise torch.OutOfMemoryError("no room")
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "_personalize", fails_twice)
    outcome = session.personalize(images[:5], images[5], "red fox", steps=1)
    assert peaks == sorted(set(peaks), reverse=True) and len(peaks) == 3
    assert sum("began again by a smaller plan" in warning for warning in outcome.warnings) == 2
    assert outcome.plan is not None and outcome.plan.peak == peaks[-1]


def test_after_no_memory_the_parts_of_the_failed_plan_are_not_counted(
    published: OfficialFolder, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(published, CPU)
    count_parts(session, 10**9, monkeypatch)
    least, whole = smallest_budget(published), session._draw

    def fails(*_: object) -> None:
        assert session.parts.plan is not None and session.parts.resident
        monkeypatch.setattr("pigeon_cli.pipeline.planning.SMALLER", (least + 1) / session.parts.plan.peak)
        monkeypatch.setattr(session, "_draw", whole)
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(session, "_draw", fails)
    outcome = session.personalize(images[:5], images[5], "red fox", dials=[0.5], steps=1)
    assert outcome.plan is not None and outcome.plan.peak <= least + 1


def test_the_next_plan_does_not_count_what_the_last_one_brought_into_memory(
    published: OfficialFolder, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(published, CPU)
    count_parts(session, 10**9, monkeypatch)
    least = smallest_budget(published)
    first = session.personalize(images[:5], images[5], "red fox", dials=[0.5], steps=1)
    assert first.plan is not None and session.parts.resident
    count_parts(session, least, monkeypatch)
    again = session.personalize(images[:5], images[5], "red fox", dials=[0.5], steps=1)
    assert again.plan is not None and again.plan.peak <= least


def test_a_plan_ends_where_its_parts_are_let_go(published: OfficialFolder) -> None:
    parts = Parts(published, CPU)
    steps = (("load", "tokenizer"), ("run", "mask"), ("evict", "tokenizer"), ("run", "draw"))
    parts.follow(by_hand(Precision.FLOAT32, *steps), CPU)
    parts.enter("mask")
    parts.release()
    assert parts.resident == ()
    parts.enter("draw")


def test_a_model_that_is_small_is_planned_only_when_asked(images: list[Image.Image]) -> None:
    mini = find_model("mini")
    assert Session(mini, CPU).personalize(images[:2], images[5], dials=[0.5], samples=1, steps=1).plan is None
    planned = Session(mini, CPU, Budget(dtype="bfloat16"))
    outcome = planned.personalize(images[:2], images[5], dials=[0.5], samples=1, steps=1)
    assert outcome.plan is not None and outcome.plan.precision is Precision.BFLOAT16
    assert ALIGNED.name in planned.parts.resident
