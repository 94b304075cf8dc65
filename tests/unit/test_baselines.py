"""The rivals on tiny random models: they run, they go by what they should, and they say that they are unproven."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.evaluation import draw
from pigeon_cli.evaluation.baselines import STATUS, ip_adapter, textual_inversion, words_only
from pigeon_cli.evaluation.baselines.stable_diffusion import load_pipeline
from pigeon_cli.evaluation.drawing import RowMaker, main
from pigeon_cli.evaluation.pictures import Shown, open_shown
from pigeon_cli.evaluation.requests import read_requests
from pigeon_cli.pipeline.session import Session
from pigeon_cli.weights.store import find_model
from tests.tiny_diffusion import write_tiny_pipeline
from tests.tiny_model import write_tiny_model
from tests.tiny_requests import write_requests

RED, BLUE = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("diffusion"))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model")).path


def options(model: Path) -> Namespace:
    return Namespace(model=str(model), steps=2)


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def run(maker: RowMaker, requests: Path, model: Path, out: Path, *more: str) -> int:
    return main(maker, ["--requests", str(requests), "--model", str(model), "--out", str(out), *more])


def test_ip_adapter_goes_by_the_mean_of_the_history(pipeline_folder: Path) -> None:
    rival = ip_adapter.load(options(pipeline_folder), CPU)
    red, both, turned = (rival.taste(history) for history in ((RED,), (RED, BLUE), (BLUE, RED)))
    assert red.shape == (2, 1, 8) and not red[0].any()
    assert torch.allclose(both, turned, atol=1e-6) and not torch.allclose(red, both, atol=1e-3)
    assert torch.allclose(both[1], (rival.taste((RED,))[1] + rival.taste((BLUE,))[1]) / 2, atol=1e-6)
    drawn = [rival.draw(Shown(history, None, None, "fox"), stream()) for history in ((RED,), (BLUE,), (RED,))]
    assert all(image is not None and image.size == (16, 16) for image in drawn)
    assert drawn[0].tobytes() == drawn[2].tobytes() != drawn[1].tobytes()  # type: ignore[union-attr]
    assert rival.draw(Shown((), RED, None, "fox"), stream()) is None


def test_textual_inversion_learns_one_word_and_changes_no_other(pipeline_folder: Path) -> None:
    pipeline = load_pipeline(pipeline_folder, CPU)
    rival = textual_inversion.TextualInversion(pipeline, steps=2, learning_steps=8)
    table = pipeline.text_encoder.get_input_embeddings().weight
    before = table.detach().clone()
    losses = rival.learn((RED, RED), stream())
    changed = (table != before).any(1).nonzero().flatten().tolist()
    assert changed == [pipeline.tokenizer.convert_tokens_to_ids("<taste>")] == [len(before) - 1]
    assert all(not parameter.requires_grad for parameter in pipeline.text_encoder.parameters())
    red = table[-1].detach().clone()
    # From its start again, with the same draws: the same word; from another history, another.
    assert rival.learn((RED, RED), stream()) == losses
    assert torch.equal(table[-1], red)
    rival.learn((BLUE, BLUE), stream())
    assert not torch.allclose(table[-1], red)


def test_the_word_lowers_the_loss_it_is_fitted_to(pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rival = textual_inversion.TextualInversion(load_pipeline(pipeline_folder, CPU), steps=2, learning_steps=40)
    loss = rival._loss
    # One fixed draw of noise and time, so that losses of different steps can be compared.
    monkeypatch.setattr(rival, "_loss", lambda latents, _: loss(latents, torch.Generator().manual_seed(1)))
    losses = rival.learn((RED,), stream())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("baseline", "more"), [(ip_adapter, ()), (textual_inversion, ("--learning-steps", "2"))], ids=["ip", "inversion"]
)
def test_diffusion_baselines_draw_a_request_file(
    pipeline_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], baseline, more: tuple[str, ...]
) -> None:
    requests = write_requests(tmp_path)
    assert run(baseline.MAKER, requests, pipeline_folder, tmp_path / "out", "--steps", "1", *more) == 0
    said = capsys.readouterr()
    names = [f"wish-{place}.png" for place in range(4)]
    assert said.out.splitlines() == [str(tmp_path / "out" / name) for name in names] and STATUS in said.err
    assert sorted(os.listdir(tmp_path / "out")) == ["row.json", *names]
    assert json.loads((tmp_path / "out" / "row.json").read_text())["status"] == STATUS
    assert STATUS in " ".join((baseline.__doc__ or "").lower().split())


def test_words_only_reads_nothing_but_words(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests, out = write_requests(tmp_path), tmp_path / "out"
    assert run(words_only.MAKER, requests, model_folder, out) == 0
    # The last request has no words.
    assert sorted(os.listdir(out)) == ["row.json", "wish-0.png", "wish-1.png", "wish-2.png"]
    assert "nothing to go by: wish-3" in capsys.readouterr().err
    # An interrupted run goes on: what is there stays, what lacks is drawn as it would have been.
    kept, lost = out / "wish-0.png", out / "wish-1.png"
    drawn = lost.read_bytes()
    kept.write_bytes(b"mine")
    lost.unlink()
    assert run(words_only.MAKER, requests, model_folder, out) == 0
    assert (kept.read_bytes(), lost.read_bytes()) == (b"mine", drawn)
    assert run(words_only.MAKER, requests, model_folder, out, "--seed", "1") == 6
    rival = words_only.load(options(model_folder), CPU)
    one, other = (rival.draw(Shown((image,), image, None, "red fox"), stream()) for image in (RED, BLUE))
    assert one is not None and other is not None and one.tobytes() == other.tobytes()
    changed = rival.draw(Shown((RED,), RED, None, "blue whale"), stream())
    assert changed is not None and changed.tobytes() != one.tobytes()


def test_own_rows_are_what_the_session_draws(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = write_requests(tmp_path)
    rows = {"dial": ("--ref-mask", "0.2"), "base": ("--base",), "auto": ("--ref-mask", "auto", "--mask", "off")}
    for name, more in rows.items():
        assert run(draw.MAKER, requests, model_folder, tmp_path / name, "--device", "cpu", *more) == 0
        # The last request has neither reference nor words.
        assert sorted(os.listdir(tmp_path / name)) == ["row.json", "wish-0.png", "wish-1.png", "wish-2.png"]
    assert STATUS not in capsys.readouterr().err
    first = read_requests(requests)[0][0]
    shown = open_shown(first)
    session = Session(find_model(str(model_folder)), choose_device("cpu"))
    choices = {"samples": 1, "count": 1, "seed": stream_seed(0, "row", first.id), "dials": (0.2,)}
    for name, aligned in (("dial", True), ("base", False)):
        (image,) = session.personalize(shown.history, shown.reference, first.words, aligned=aligned, **choices).images
        with Image.open(tmp_path / name / "wish-0.png") as drawn:
            assert drawn.tobytes() == image.tobytes()
    with pytest.raises(SystemExit, match="2"):
        run(draw.MAKER, requests, model_folder, tmp_path / "no", "--ref-mask", "2")


def test_a_request_that_cannot_be_drawn_is_a_miss_and_the_rest_goes_on(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = write_requests(tmp_path)
    requests.write_text(requests.read_text().replace("a green", "a very green " * 400))
    assert run(draw.MAKER, requests, model_folder, tmp_path / "out", "--device", "cpu") == 0
    assert "failed, a miss: wish-1: a prompt of" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path / "out")) == ["row.json", "wish-0.png", "wish-2.png"]


def test_a_folder_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = write_requests(tmp_path)
    for number, baseline in enumerate((ip_adapter, textual_inversion, words_only)):
        assert run(baseline.MAKER, requests, tmp_path, tmp_path / str(number)) == 3
        assert str(tmp_path) in capsys.readouterr().err
