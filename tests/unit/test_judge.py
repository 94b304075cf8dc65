"""The judge, its rows and its tables, on a tiny dataset of drawn shapes; the network runs on few images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pigeon_cli.core.errors import InputError, PigeonError, UsageError
from pigeon_cli.training.data.dataset import IconDataset, IconRecord
from pigeon_cli.training.data.looks import PLAIN, Look
from pigeon_cli.training.data.requests import PlantedImage, TrainingRequest
from tests.benchmarks import candidates as candidates_module
from tests.benchmarks.draws import drawn_by_row, read_folder, save_picture
from tests.benchmarks.judge import CandidateFeatures, Judge, JudgeConstants, Verdict, first_wins
from tests.benchmarks.judge_constants import fisher_axes, looked, wear
from tests.benchmarks.judge_network import Features, JudgeNetwork
from tests.benchmarks.mask_precision import mask_figure, mask_shares
from tests.benchmarks.rows import (
    ROWS,
    Context,
    DroppedTokens,
    EvaluationRequest,
    Row,
    load_drawer,
    swap_histories,
)
from tests.benchmarks.sheet import request_sheet
from tests.benchmarks.table import RowResult, hits_csv, markdown, paired_bootstrap, summary, wilson

SETS = ("noto", "twemoji", "fxemoji")
MEANINGS = tuple(f"thing{number:02d}" for number in range(60))
SIZE = 32


def _record(number: int, style: str, meaning: str) -> IconRecord:
    words = (f"word{meaning[-2:]}", f"kind{int(meaning[-2:]) // 2}")
    return IconRecord(
        id=number,
        set=style,
        family=style,
        name=meaning,
        meaning=meaning,
        cell=f"{meaning}/{style}",
        split="valid" if meaning == "thing00" else "train",
        twins=number,
        licence="MIT",
        attribution="",
        label=meaning,
        tags=words,
        group="group",
        subgroup="subgroup",
    )


@pytest.fixture(scope="module")
def dataset() -> IconDataset:
    cells = [(style, meaning) for style in SETS for meaning in MEANINGS]
    records = [_record(number, style, meaning) for number, (style, meaning) in enumerate(cells)]
    images = np.zeros((len(records), SIZE, SIZE, 4), np.uint8)
    for record in records:
        rng = np.random.default_rng(MEANINGS.index(record.meaning))
        shape = np.kron(rng.random((4, 4)) > 0.5, np.ones((6, 6), bool))
        colour = np.zeros(3)
        colour[SETS.index(record.set)] = 200
        images[record.id, 4:28, 4:28, :3] = colour
        images[record.id, 4:28, 4:28, 3] = 255 * shape
    return IconDataset(images, records)


def _id(style: str, meaning: int) -> int:
    return SETS.index(style) * len(MEANINGS) + meaning


@pytest.fixture()
def request_(dataset: IconDataset) -> EvaluationRequest:
    history = tuple(_id("noto", meaning) for meaning in (2, 3, 4, 5, 6))
    return EvaluationRequest.of(
        dataset, TrainingRequest("noto", PLAIN, history, (), _id("twemoji", 0), "", _id("noto", 0))
    )


def _features(*rows: list[float]) -> Features:
    table = torch.tensor(rows)
    return Features(table, table, table)


def _judge(weight: float = 1.0) -> Judge:
    zero, one = {"noto": torch.zeros(2)}, {"noto": torch.ones(2)}
    return Judge(JudgeConstants(torch.zeros(2), torch.eye(2), zero, one, weight))


def test_a_tie_or_a_blank_image_is_a_miss() -> None:
    assert first_wins(torch.tensor([0.9, 0.8, 0.1]))
    assert not first_wins(torch.tensor([0.9, 0.9]))
    assert not first_wins(torch.zeros(5))
    assert not first_wins(torch.tensor([1.0]))


def test_verdict_takes_each_feature_for_its_own_question() -> None:
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    candidates = CandidateFeatures(
        "noto", _features(right, wrong), _features(wrong, right), _features(right, wrong, [1, 1])
    )
    verdict = _judge().verdict(_features([0.9, 0.1]), candidates)
    assert (verdict.style, verdict.look, verdict.meaning, verdict.joint) == (True, False, True, True)
    assert not Verdict(style=True).joint


def test_constants_survive_json_to_five_digits() -> None:
    constants = replace(_judge().constants, style_mean=torch.tensor([math.pi, 1e-6]))
    again = JudgeConstants.from_json(constants.to_json())
    torch.testing.assert_close(again.style_mean, torch.tensor([3.1416, 1e-6]))
    assert again.nearness_weight == 1.0


def test_committed_constants_fit_the_network() -> None:
    judge, network = Judge.load(), JudgeNetwork()
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    features = network.features(images)
    assert features.style.shape == (2, 80) and features.nearness.shape == (2, 40 * 14 * 14)
    assert features.meaning.shape == (2, 1280) and len(judge.constants.meaning_mean) == 9
    assert judge.style_similarity(features[0:1], features)[0] == pytest.approx(1 + judge.constants.nearness_weight)
    assert judge.meaning_similarity(features[0:1], features, "noto")[0] == pytest.approx(1)
    with pytest.raises(ValueError, match="expected"):
        network.features(torch.zeros(0, 3, 8, 8))


def test_fisher_axes_ignore_what_varies_within_a_set() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 3, generator=generator) * torch.tensor([10.0, 0.1, 0.1])
    clean = {"a": noise[:100], "b": noise[100:] + torch.tensor([0.0, 1.0, 0.0])}
    worn = {name: rows + 0.01 * torch.randn(rows.shape, generator=generator) for name, rows in clean.items()}
    _, axes = fisher_axes(clean, worn)
    axis = axes[:, 0] / axes[:, 0].norm()
    assert axes.shape == (3, 1) and abs(axis[1]) > 0.9 and abs(axis[0]) < 0.1


def test_wear_is_seeded_and_keeps_white_outside() -> None:
    white = torch.ones(1, 3, 32, 32)
    first, again = (wear(white, 1.0, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again) and first.mean() > 0.85


def test_candidates_hold_the_right_answer_first_and_once(dataset: IconDataset) -> None:
    target = dataset.by_cell["thing00", "noto"]
    styles = candidates_module.same_meaning(dataset, target)
    rivals = candidates_module.meaning_rivals(dataset, target)
    assert [each.set for each in styles] == ["noto", "twemoji", "fxemoji"]
    assert rivals[0] is target and len({each.id for each in rivals}) == 50 and {each.set for each in rivals} == {"noto"}
    looks = candidates_module.draw_other_looks(dataset, target, PLAIN)
    assert len(set(looks)) == 8 and PLAIN not in looks
    assert looks == candidates_module.draw_other_looks(dataset, target, PLAIN)


def test_twins_of_the_right_answer_are_no_rivals(dataset: IconDataset) -> None:
    target = dataset.by_cell["thing00", "noto"]
    records = [
        replace(each, twins=target.twins) if each.cell in ("thing01/noto", "thing00/twemoji") else each
        for each in dataset.records
    ]
    twins = IconDataset(dataset.images, records)
    assert len(candidates_module.same_meaning(twins, target)) == 2
    assert "thing01" not in {each.meaning for each in candidates_module.meaning_rivals(twins, target)}


def test_candidate_features_are_computed_once(
    dataset: IconDataset, request_: EvaluationRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates_module, "MEANING_CANDIDATES", 4)
    network = JudgeNetwork()
    first = candidates_module.candidate_features(dataset, request_.request, network, tmp_path)
    monkeypatch.setattr(network, "features", None)
    again = candidates_module.candidate_features(dataset, request_.request, network, tmp_path)
    assert torch.equal(first.meaning.meaning, again.meaning.meaning)
    assert (len(first.style), len(first.look), len(first.meaning)) == (3, 9, 4)
    assert torch.equal(first.style.style[0], first.look.style[0])


def test_model_free_rows_draw_what_they_say(dataset: IconDataset, request_: EvaluationRequest) -> None:
    context = Context(dataset, 0)
    images = context.images(request_.request)
    assert ROWS["copy-reference"].draw(context, request_).tobytes() == images.reference.tobytes()
    copied = ROWS["copy-history"].draw(context, request_).tobytes()
    assert copied in {image.tobytes() for image in images.history}
    # thing01 shares the tag "kind0" with thing00, and no other train cell of the set shares anything.
    expected = looked(dataset, [(dataset.by_cell["thing01", "noto"], PLAIN)])[0]
    found = np.asarray(ROWS["retrieval"].draw(context, request_))
    assert np.array_equal(found, (expected * 255).round().byte().permute(1, 2, 0).numpy())


def test_rows_with_a_model_refuse_to_run_without(dataset: IconDataset, request_: EvaluationRequest) -> None:
    with pytest.raises(UsageError, match="needs a model"):
        ROWS["auto"].draw(Context(dataset, 0), request_)
    with pytest.raises(UsageError, match="no generator"):
        load_drawer("tests.nowhere:nothing")


class _Drawer:
    fingerprint = "one"

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []

    def draw(self, request: EvaluationRequest, images: object, **settings: object) -> Image.Image:
        self.calls.append(settings)
        if request.words == "fail":
            raise InputError("cannot draw this")
        return Image.new("RGB", (8, 8), "red")


def test_rows_pass_their_settings(dataset: IconDataset, request_: EvaluationRequest) -> None:
    drawer = _Drawer()
    context = Context(dataset, 7, drawer, dial=0.3)  # type: ignore[arg-type]
    for name in ("auto", "base", "mask-off", "words-off"):
        ROWS[name].draw(context, request_)
    usual = {"dial": 0.3, "mask": "learned", "alignment": "full", "words": True, "seed": 7, "history_mask": None}
    assert drawer.calls == [
        usual | {"dial": None},
        usual | {"alignment": "none"},
        usual | {"mask": "off", "history_mask": 0.2},
        usual | {"words": False},
    ]


def test_draws_are_kept_and_failures_are_misses(
    dataset: IconDataset, request_: EvaluationRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawer = _Drawer()
    context = Context(dataset, 7, drawer)  # type: ignore[arg-type]
    failing = EvaluationRequest.of(dataset, replace(request_.request, words="fail"))
    for _ in range(2):
        drawn = list(drawn_by_row(ROWS["dial"], context, [request_, failing, None], tmp_path))
    assert drawn[0] is not None and drawn[0].shape == (1, 3, 8, 8) and drawn[1:] == [None, None]
    assert len(drawer.calls) == 3 and "cannot draw this" in capsys.readouterr().err
    drawer.fingerprint = "other weights"
    with pytest.raises(UsageError, match="other settings or weights"):
        list(drawn_by_row(ROWS["dial"], context, [request_], tmp_path))


def test_swapped_draws_are_those_of_as_many_requests(
    dataset: IconDataset, request_: EvaluationRequest, tmp_path: Path
) -> None:
    context = Context(dataset, 7, _Drawer())  # type: ignore[arg-type]
    list(drawn_by_row(ROWS["swapped"], context, [request_, None], tmp_path / "swapped"))
    # With more requests the last one of before gets the history of another user.
    with pytest.raises(UsageError, match="other settings"):
        list(drawn_by_row(ROWS["swapped"], context, [request_, None, None], tmp_path / "swapped"))
    list(drawn_by_row(ROWS["dial"], context, [request_], tmp_path / "dial"))
    assert len(list(drawn_by_row(ROWS["dial"], context, [request_, None], tmp_path / "dial"))) == 2


def test_a_rivals_folder_is_a_row(request_: EvaluationRequest, tmp_path: Path) -> None:
    save_picture(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), tmp_path / f"{request_.id}.png")
    (image,) = read_folder(tmp_path, [request_])
    assert image is not None and image.min() == 1
    (tmp_path / f"{request_.id}.png").write_bytes(b"no picture")
    assert list(read_folder(tmp_path, [request_])) == [None]
    with pytest.raises(PigeonError, match="no folder"):
        list(read_folder(tmp_path / "none", [request_]))


def test_swapped_users_bring_their_own_right_answer(dataset: IconDataset, request_: EvaluationRequest) -> None:
    history = tuple(_id("fxemoji", meaning) for meaning in (2, 3, 4, 5, 6))
    look = Look.from_json({"parts": [{"kind": "tilt", "degrees": 20}]})
    other = TrainingRequest("fxemoji", look, history, (), _id("twemoji", 1), "", _id("fxemoji", 1))
    swapped, back = swap_histories(dataset, [request_, EvaluationRequest.of(dataset, other)])
    assert swapped is not None and swapped.id == request_.id and back is not None
    assert swapped.request.target == _id("fxemoji", 0) and swapped.request.look == look
    assert swapped.request.history == history and swapped.request.reference == request_.request.reference
    assert swap_histories(dataset, [request_]) == [None]


def test_wilson_by_hand() -> None:
    share = wilson(8, 10)
    assert (share.percent, round(share.low, 1), round(share.high, 1)) == (80, 49.0, 94.3)
    assert wilson(0, 10).low == 0 and wilson(10, 10).high == pytest.approx(100)
    with pytest.raises(ValueError):
        wilson(3, 2)


def test_bootstrap_is_paired_and_grouped() -> None:
    groups = [str(number % 10) for number in range(100)]
    first = [number % 2 == 0 for number in range(100)]
    same = paired_bootstrap(first, first, groups)
    assert (same.percent, same.low, same.high) == (0, 0, 0)
    never: list[float | None] = [0.0] * 100
    # Half of the groups hit always and half never, so groups decide: the interval is that of ten coins, not of 100.
    difference = paired_bootstrap(first, never, groups)
    assert difference.percent == 50 and difference.low <= 20 and difference.high >= 80
    assert paired_bootstrap([1.0, None], [0.0, 1.0], ["a", "b"]).percent == 100
    with pytest.raises(ValueError, match="in common"):
        paired_bootstrap([None], [1.0], ["a"])


def test_table_shows_chance_difference_and_ceiling() -> None:
    both, none = Verdict(True, True, True), Verdict(style=True)
    results = [
        RowResult("auto", "ours", (both, none)),
        RowResult("copy", "copy", (none, None)),
        RowResult("ceiling", "top", (both, both)),
    ]
    chance = {"style": 14.0, "look": 11.1, "meaning": 2.0, "joint": 0.28}
    table = summary(results, chance, ["a", "b"], {"split": "valid"})
    auto, copy, _ = table["rows"]
    assert auto["joint"]["percent"] == 50 and auto["of_ceiling"]["joint"] == 50 and "minus_first" not in auto
    assert copy["requests"] == 1 and copy["minus_first"]["joint"]["percent"] == 100
    text = markdown(table)
    assert text.splitlines()[2].startswith("| chance |  | 14.0 | 11.1 | 2.0 | 0.3 |")
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert hits_csv(results, ["x", "y"], ["a", "b"]).splitlines()[1:3] == ["auto,x,a,1,1,1,1", "auto,y,b,1,0,0,0"]


def test_mask_figure_by_hand() -> None:
    found = DroppedTokens(((1, 0), (1, 2), (0, 1), (1, 3)), (10, 10))
    figure = mask_figure(found, [1])
    assert (figure.planted, figure.chance) == (0.75, 0.5)
    share, above = mask_shares([figure, figure], ["a", "b"])
    assert (share.percent, above.percent) == (75, 25)
    with pytest.raises(ValueError, match="expected 4"):
        mask_figure(replace(found, dropped=found.dropped[:3]), [1])
    with pytest.raises(ValueError, match="does not exist"):
        mask_figure(replace(found, dropped=((1, 0), (1, 2), (0, 1), (1, 10))), [1])


def test_planted_images_keep_their_own_look(dataset: IconDataset, request_: EvaluationRequest) -> None:
    look = Look.from_json({"parts": [{"kind": "tilt", "degrees": 20}]})
    planted = (PlantedImage(1, "fxemoji", look, _id("fxemoji", 9)),)
    history = (*request_.request.history[:1], _id("fxemoji", 9), *request_.request.history[2:])
    images = Context(dataset, 0).images(replace(request_.request, planted=planted, history=history))
    expected = looked(dataset, [(dataset.records[_id("fxemoji", 9)], look)])[0]
    assert np.array_equal(np.asarray(images.history[1]), (expected * 255).round().byte().permute(1, 2, 0).numpy())


def test_sheet_leaves_a_gap_for_a_missing_drawing(
    dataset: IconDataset, request_: EvaluationRequest, tmp_path: Path
) -> None:
    sheet = request_sheet(Context(dataset, 0), [request_.request], tmp_path, cell=32)
    save_picture(Image.new("RGB", (8, 8), "red"), tmp_path / f"{request_.id}.png")
    drawn = request_sheet(Context(dataset, 0), [request_.request], tmp_path, cell=32)
    assert sheet.size == drawn.size and sheet.tobytes() != drawn.tobytes()


def test_every_row_has_a_name_and_a_sentence() -> None:
    assert all(isinstance(row, Row) and row.name == name and row.says for name, row in ROWS.items())
