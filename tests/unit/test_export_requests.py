"""The protocol's requests as files: what ``pigeon evaluate`` reads is what the protocol shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageChops

from pigeon_cli.evaluation.pictures import open_shown
from pigeon_cli.evaluation.requests import read_requests
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.data.icons import build_dataset
from pigeon_cli.training.data.requests import draw_evaluation_requests
from tests.benchmarks.export_requests import main
from tests.benchmarks.rows import Context, EvaluationRequest, to_picture
from tests.tiny_icons import write_icon_packages


def test_files_are_what_the_protocol_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "packages").mkdir()
    write_icon_packages(tmp_path / "packages")
    build_dataset(tmp_path / "packages", tmp_path / "data", size=32)
    arguments = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--requests", "4", "--seed", "3"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'requests.jsonl'}\n"
    written, _ = read_requests(tmp_path / "out")
    dataset = load_dataset(tmp_path / "data")
    context = Context(dataset, 3)
    drawn = [EvaluationRequest.of(dataset, each) for each in draw_evaluation_requests(dataset, "valid", 4, 3)]
    assert [(each.id, each.words, each.group) for each in written] == [(r.id, r.words, r.meaning) for r in drawn]
    for request, protocol in zip(written, drawn, strict=True):
        shown, images = open_shown(request), context.images(protocol.request)
        answer = to_picture(context.answer(protocol.request)[0])
        assert shown.reference is not None and shown.target is not None
        found = (*shown.history, shown.reference, shown.target)
        wanted = (*images.history, images.reference, answer)
        assert all(same(one, other) for one, other in zip(found, wanted, strict=True)) and len(found) == 7
    assert main([*arguments[:-1], "4", "--data", str(tmp_path / "nowhere")]) == 5


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None
