"""``pigeon evaluate`` as a command: figures that are known beforehand, files, names of what is missing."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from pigeon_cli.cli.main import app
from pigeon_cli.core.evaluation import Interval
from pigeon_cli.evaluation.baselines.stable_diffusion import folder_hashes
from pigeon_cli.evaluation.draw import MAKER
from pigeon_cli.evaluation.drawing import main
from pigeon_cli.evaluation.encoders import load_clip
from pigeon_cli.evaluation.requests import read_requests
from pigeon_cli.report.evaluation_text import interval_text
from pigeon_cli.weights.checkpoint import read_part, save_tensors, sha256_of
from tests.tiny_encoders import write_random_lpips, write_tiny_clip, write_tiny_dino
from tests.tiny_model import write_tiny_model
from tests.tiny_requests import COLOURS, write_requests, write_row

FILES = ["page.html", "plots.png", "table.csv", "table.json", "table.md"]


@dataclass
class Run:
    """One evaluation of right answers, and of a baseline in wrong colours that lacks one image."""

    folder: Path
    result: Result

    @property
    def table(self) -> dict:
        return json.loads((self.folder / "scores" / "table.json").read_bytes())

    def figures(self, row: str) -> dict[str, dict | None]:
        names = [f"{each['metric']} {each['against']}" for each in self.table["measures"]]
        (found,) = (each for each in self.table["rows"] if each["row"] == row)
        return dict(zip(names, found["figures"], strict=True))


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(os.fspath, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("evaluate")
    write_requests(folder)
    right = write_row(folder / "right")
    wrong = write_row(folder / "<wrong>", ("blue", None, "orange", "red"))
    (wrong / "wish-1.png").write_bytes(b"no image")
    (folder / "images" / "0-1.txt").write_text("a red box")
    weights = ("--clip", write_tiny_clip(folder / "clip"), "--dino", write_tiny_dino(folder / "dino"))
    result = invoke(
        "--data", folder, "--row", f"right={right}", "--baseline", f"<wrong>|={wrong}", "--out", folder / "scores",
        *weights, "--lpips", write_random_lpips(folder / "lpips"), "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return Run(folder, result)


def test_five_files_and_their_paths(run: Run) -> None:
    out = run.folder / "scores"
    assert sorted(os.listdir(out)) == FILES
    assert sorted(run.result.stdout.splitlines()) == [str(out / name) for name in FILES]
    assert "warning: <wrong>|: 1 of 4 images are missing or unreadable" in run.result.stderr
    assert "not computed: FID with Inception-v3" in run.result.stderr


def test_the_right_answer_scores_what_it_must(run: Run) -> None:
    figures = run.figures("right")
    perfect = {"CIS target": 100, "DIS target": 100, "SSIM target": 1, "MS-SSIM target": 1, "LPIPS target": 0}
    for name, value in perfect.items():
        found = figures[name]
        assert found and found["count"] == 3
        assert [found[key] for key in ("mean", "low", "high")] == pytest.approx([value] * 3, abs=1e-4)
    for encoder in ("CLIP", "DINO"):
        distance = figures[f"FD {encoder}"]
        assert distance and distance["mean"] == pytest.approx(0, abs=1e-6) and distance["low"] is None
    # The other row lacks one image: distances are of the requests that both answer.
    counted = {"CS words": 3, "CS history": 1, "CIS reference": 3, "SSIM history": 4, "FD CLIP": 2, "FD DINO": 2}
    assert {name: figures[name]["count"] for name in counted} == counted


def test_scores_of_words_are_cosines_with_the_words(run: Run) -> None:
    encoder = load_clip(run.folder / "clip", torch.device("cpu"))
    with Image.open(run.folder / "right" / "wish-0.png") as image:
        features = encoder.images([image.resize((512, 512), Image.Resampling.BILINEAR)])
    cosine = torch.nn.functional.cosine_similarity(features, encoder.words("a red box")).item()
    history = run.figures("right")["CS history"]
    assert history and history["mean"] == pytest.approx(100 * cosine, abs=1e-3) and history["low"] is None


def test_the_baseline_is_worse_by_a_paired_difference(run: Run) -> None:
    (right, wrong) = run.table["rows"]
    assert (right["baseline"], wrong["baseline"], right["minus_first"]) == (False, True, [])
    assert (wrong["images"], wrong["missing"]) == (3, ["wish-1"])
    names = [f"{each['metric']} {each['against']}" for each in run.table["measures"]]
    minus = dict(zip(names, wrong["minus_first"], strict=True))
    assert minus["SSIM target"]["high"] < 0 < minus["LPIPS target"]["low"]
    assert minus["SSIM target"]["count"] == 2 and minus["FD CLIP"] is None
    both = run.figures("right")["SSIM target"], run.figures("<wrong>|")["SSIM target"]
    assert minus["SSIM target"]["mean"] == pytest.approx(both[1]["mean"] - both[0]["mean"], abs=1e-6)


def test_markdown_and_csv_tell_the_same(run: Run) -> None:
    text = (run.folder / "scores" / "table.md").read_text("utf-8")
    heads = text.splitlines()[0]
    assert "SSIM target ↑" in heads and "LPIPS history ↓" in heads
    assert "| <wrong>\\| (baseline) | 3 (1 missing) |" in text
    assert "fewer than about ten requests" in text
    assert "Not computed: FID with Inception-v3" in text and "Weights of CLIP: sha256" in text
    # Every line of a table has as many cells as its header: one more than it has unescaped bars within.
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()[:4]} == {heads.count("|")}
    rows = list(csv.DictReader(io.StringIO((run.folder / "scores" / "table.csv").read_text("utf-8"))))
    (cell,) = (r for r in rows if (r["row"], r["metric"], r["against"]) == ("<wrong>|", "SSIM", "target"))
    assert float(cell["mean"]) == pytest.approx(run.figures("<wrong>|")["SSIM target"]["mean"], rel=1e-6)
    assert cell["baseline"] == "1" and float(cell["minus_first"]) < 0


def test_the_page_is_whole_and_escaped(run: Run) -> None:
    page = (run.folder / "scores" / "page.html").read_text("utf-8")
    assert "default-src &#39;none&#39;" in page and "<script" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:image/)", page)
    # 2 liked pictures for each of 4 requests, 3 references and right answers, 4 + 3 drawings, the plot.
    assert page.count("<img") == 4 * 2 + 3 * 2 + 7 + 1
    assert page.count('class="gap">missing') == 1
    assert "fewer than about ten requests" in page
    assert "&lt;wrong&gt;|" in page and "<wrong>" not in page
    assert "a red &lt;ball&gt; &amp; &#39;more&#39;" in page


def test_bars_are_drawn_for_every_measure(run: Run) -> None:
    with Image.open(run.folder / "scores" / "plots.png") as plot:
        colours = {colour for _, colour in plot.getcolors(2**20)}
        assert plot.width == 1240 and plot.height > 100
    assert {(86, 140, 190), (176, 176, 176), (30, 30, 30)} <= colours


def test_without_weights_what_cannot_be_computed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIGEON_CACHE", str(tmp_path / "cache"))
    requests = tmp_path / "requests.jsonl"
    Image.new("RGB", (20, 20), "red").save(tmp_path / "liked.png", exif=b"Exif\0\0damaged")
    requests.write_text('{"id": "one", "history": ["liked.png"]}\n')
    (tmp_path / "row").mkdir()
    Image.new("RGBA", (30, 10), (0, 0, 0, 0)).save(tmp_path / "row" / "one.webp")
    result = invoke("--data", requests, "--row", f"r={tmp_path / 'row'}", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout_bytes == (tmp_path / "out" / "table.json").read_bytes()
    table = json.loads(result.stdout)
    assert [f"{m['metric']} {m['against']}" for m in table["measures"]] == ["SSIM history", "MS-SSIM history"]
    names = [each["metric"] for each in table["not_computed"]]
    assert {"CS", "CIS", "FD CLIP", "DIS", "FD DINO", "LPIPS", "FID with Inception-v3"} <= set(names)
    assert {"SSIM reference", "SSIM target"} <= set(names)
    assert "pigeon download clip-vit-h-14" in table["not_computed"][0]["reason"]
    again = invoke("--data", requests, "--row", f"r={tmp_path / 'row'}", "--out", tmp_path / "out")
    assert again.exit_code == 6 and "exists already" in again.stderr


def test_one_pair_has_no_distance_and_the_reason_is_right(run: Run, tmp_path: Path) -> None:
    row, out = write_row(tmp_path / "one", COLOURS[:1]), tmp_path / "out"
    given = ("--data", run.folder, "--row", f"r={row}", "--clip", run.folder / "clip", "--device", "cpu", "--json")
    reasons = {
        each["metric"]: each["reason"] for each in json.loads(invoke(*given, "--out", out).stdout)["not_computed"]
    }
    assert reasons["FD CLIP"].startswith("fewer than two requests have a target")


def test_an_end_near_zero_is_not_zero() -> None:
    assert interval_text(Interval(20.0, 0.04, 45.0, 9)) == "20.0 [0.040, 45.0]"
    assert interval_text(Interval(0.5, None, None, 1)) == "0.500"


def test_drawings_of_other_weights_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests, model = write_requests(tmp_path), write_tiny_model(tmp_path / "model")
    given = ("--requests", requests, "--model", model.path, "--out", tmp_path / "row", "--device", "cpu")
    arguments = list(map(os.fspath, given))
    assert main(MAKER, arguments) == main(MAKER, arguments) == 0
    record = json.loads((tmp_path / "row" / "row.json").read_bytes())
    language = model.part("language")
    assert record["weights"][language.name] == sha256_of(language)
    save_tensors({name: tensor + 1 for name, tensor in read_part(language).items()}, language)
    capsys.readouterr()
    assert main(MAKER, arguments) == 6
    assert "holds drawings of other requests, weights or settings" in capsys.readouterr().err


def test_a_rival_is_known_by_its_safetensors(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a.safetensors").write_bytes(b"weights")
    assert folder_hashes(str(tmp_path)) == {"unet/a.safetensors": hashlib.sha256(b"weights").hexdigest()}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "there is nothing to evaluate"),
        (("--row", "right"), 2, "does not name a row"),
        (("--row", "a=ROW", "--baseline", "a=ROW"), 2, "two rows have the name"),
        (("--row", "a=nowhere"), 5, "no folder nowhere"),
        (("--row", "a=ROW", "--clip", "nowhere"), 3, "no folder of weights nowhere"),
        (("--row", "a=ROW", "--lpips", "ROW"), 3, "lacks alexnet.pth"),
    ],
)
def test_errors(run: Run, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    row = str(run.folder / "right")
    given = [argument.replace("ROW", row) for argument in arguments]
    result = invoke("--data", run.folder, "--out", tmp_path / "out", *given, "--device", "cpu")
    assert (result.exit_code, result.stdout) == (code, "") and says in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no request"),
        ("[1]", "line 1: it is no JSON object"),
        ('{"id": "a", "history": []}\n{"id": "a", "history": []}', "two requests with the id 'a'"),
        ('\n{"id": "../a", "history": []}', "line 2: the id '../a' cannot be a file name"),
        ('{"id": ".a", "history": []}', "cannot be a file name"),
        ('{"id": "a"}', "history is no list"),
        ('{"id": "a", "history": [1]}', "history is no list"),
        ('{"id": "a", "history": [], "words": 3}', "words is neither text nor null"),
        ('{"id": "a", "history": [], "word": "x"}', "unknown key 'word'"),
        ('{"id": "wish-0", "history": ["nowhere.png"]}', "nowhere.png"),
    ],
)
def test_request_files_that_cannot_be_used(run: Run, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.jsonl").write_text(text)
    row = f"a={run.folder / 'right'}"
    result = invoke("--data", tmp_path / "r.jsonl", "--row", row, "--out", tmp_path / "out", "--device", "cpu")
    assert (result.exit_code, result.stdout) == (5, "") and says in result.stderr
    assert not (tmp_path / "out").exists()


def test_lines_end_where_json_lines_end(tmp_path: Path) -> None:
    words = "one\u2028two\u0085three"
    line = json.dumps({"id": "a", "history": [], "words": words}, ensure_ascii=False)
    (tmp_path / "requests.jsonl").write_bytes(f"\ufeff{line}\r\n\n{line.replace('a', 'b', 1)}".encode())
    requests, _ = read_requests(tmp_path)
    assert [(request.id, request.words) for request in requests] == [("a", words), ("b", words)]


def test_what_may_not_be_read_is_an_input(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("--data", tmp_path, "--out", tmp_path / "out", "--device", "cpu")

    # Root may read anything, so the system's answer is planted.
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as planted:
        planted.setattr(Path, "read_bytes", refuse)
        data = invoke(*given, "--row", f"a={run.folder / 'right'}")
    monkeypatch.setattr(Path, "is_dir", refuse)
    row = invoke(*given, "--row", "a=/private/rows")
    for result, says in ((data, f"read the requests {tmp_path}/requests.jsonl"), (row, "use /private/rows")):
        assert (result.exit_code, result.stdout) == (5, "")
        error, hint = result.stderr.splitlines()
        assert error == f"error: cannot {says}: Permission denied" and "permissions" in hint


def test_the_same_arguments_give_the_same_bytes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pigeon_cli.report.evaluation_page.PAGE_REQUESTS", 3)
    for name in ("one", "two"):
        arguments = ("--data", run.folder, "--row", f"r\udcff={write_row(tmp_path / 'r', COLOURS[:2])}", "--quiet")
        assert invoke(*arguments, "--out", tmp_path / name, "--device", "cpu").exit_code == 0
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    page = (tmp_path / "one" / "page.html").read_text("utf-8")
    assert page.count("<article>") == 3 and "The first 3 of 4 requests, in order." in page
    assert "r\\udcff,0,SSIM,target" in (tmp_path / "one" / "table.csv").read_text("utf-8")
