"""``pigeon study`` as a command: what the page holds and hides, the key, and the count of votes."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tiny_requests import write_requests, write_row


@pytest.fixture
def rows(tmp_path: Path) -> tuple[str, str]:
    write_requests(tmp_path)
    first = write_row(tmp_path / "a")
    return f"secret-one={first}", f"secret-two={write_row(tmp_path / 'b', ('blue', None, 'orange', 'red'), '.webp')}"


def make(pigeon, rows: tuple[str, ...], out: str = "study", *more: str) -> Any:
    given = [argument for row in rows for argument in ("--row", row)]
    return pigeon("study", "make", "--requests", "requests.jsonl", *given, "--out", out, "--quiet", *more)


def content(folder: str) -> dict[str, Any]:
    """What the page's script reads."""
    page = Path(folder, "study.html").read_text("utf-8")
    found = re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def key(folder: str = "study") -> dict[str, Any]:
    return json.loads(Path(folder, "key.json").read_bytes())


def answer(path: str, choices: dict[int, str], name: str, **other: Any) -> str:
    answers = [{"pair": number, "choice": choice} for number, choice in choices.items()]
    value = {"version": 1, "study": key()["study"], "rater": name, "answers": answers}
    Path(path).write_text(json.dumps(value | other))
    return path


def test_the_page_is_blind_and_the_key_is_not(pigeon, rows: tuple[str, str]) -> None:
    result = make(pigeon, rows)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "study/study.html\nstudy/key.json\n", "")
    page = Path("study/study.html").read_text("utf-8")
    assert "secret" not in page and "wish-" not in page and str(Path.cwd()) not in page
    found, answers = content("study"), key()
    assert found["study"] == answers["study"] and found["study"] in page
    # wish-1 has no image in the second row.
    assert {pair["request"] for pair in answers["pairs"]} == {"wish-0", "wish-2", "wish-3"}
    assert [pair["number"] for pair in found["pairs"]] == [pair["number"] for pair in answers["pairs"]] == [1, 2, 3]
    assert all({pair["left"], pair["right"]} == {"secret-one", "secret-two"} for pair in answers["pairs"])
    assert all(uri.startswith("data:image/png;base64,") for uri in found["images"])


def test_words_cannot_end_the_script(pigeon, rows: tuple[str, str]) -> None:
    lines = Path("requests.jsonl").read_text().replace("<ball>", "</script><script>alert(1)</script>")
    Path("requests.jsonl").write_text(lines)
    assert make(pigeon, rows).exit_code == 0
    page = Path("study/study.html").read_text("utf-8")
    assert "alert(1)" in page and page.count("<script") == 2
    assert any("</script><script>" in pair["words"] for pair in content("study")["pairs"])


def test_pictures_stand_on_the_sides_that_the_key_says(pigeon, rows: tuple[str, str]) -> None:
    seeds = [str(seed) for seed in range(8)]
    sides = set()
    for seed in seeds:
        assert make(pigeon, rows, f"s{seed}", "--seed", seed).exit_code == 0
        found = content(f"s{seed}")
        for shown, pair in zip(found["pairs"], key(f"s{seed}")["pairs"], strict=True):
            if pair["request"] == "wish-0":
                # The first row has drawn the right answer in red, the second in blue: told apart by their pixels.
                sides.add((pair["left"], found["images"][shown["left"]], found["images"][shown["right"]]))
    assert {left for left, _, _ in sides} == {"secret-one", "secret-two"}
    one = {(a, b) if left == "secret-one" else (b, a) for left, a, b in sides}
    assert len(one) == 1 and len({key(f"s{seed}")["study"] for seed in seeds}) > 1


def test_each_row_stands_on_the_left_in_half_of_the_pairs(pigeon) -> None:
    Path("requests.jsonl").write_text("".join(f'{{"id": "{n}", "history": [], "words": "x"}}\n' for n in range(1, 8)))
    for folder in ("a", "b"):
        Path(folder).mkdir()
        for n in range(1, 7):
            Image.new("RGB", (8, 8), (n, 0, 0)).save(Path(folder, f"{n}.png"))
    orders = set()
    for seed in range(8):
        assert make(pigeon, ("a=a", "b=b"), f"s{seed}", "--seed", str(seed)).exit_code == 0
        sides = [pair["left"] for pair in sorted(key(f"s{seed}")["pairs"], key=lambda pair: pair["request"])]
        assert sorted(sides) == ["a"] * 3 + ["b"] * 3
        orders.add(tuple(sides))
    assert len(orders) > 2


def test_size_and_format_do_not_tell_the_rows_apart(pigeon) -> None:
    Path("requests.jsonl").write_text('{"id": "1", "history": [], "words": "x"}\n')
    for folder, size in (("a", (180, 180)), ("b", (400, 300))):
        Path(folder).mkdir()
        Image.new("RGB", size, "red").save(Path(folder, "1.png"))
    assert make(pigeon, ("a=a", "b=b")).exit_code == 0
    drawn = []
    for uri in content("study")["images"]:
        kind, _, data = uri.partition(",")
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            drawn.append((kind, image.size, image.getpixel((90, 2)), image.getpixel((90, 90))))
    # What is wider than high keeps its shape by white margins.
    red, white = (255, 0, 0), (255, 255, 255)
    assert sorted(drawn) == [("data:image/png;base64", (180, 180), edge, red) for edge in (red, white)]


def test_the_same_seed_gives_the_same_bytes_and_count_limits(pigeon, rows: tuple[str, str]) -> None:
    for out in ("one", "two"):
        assert make(pigeon, rows, out, "--count", "2", "--seed", "5").exit_code == 0
    for name in ("study.html", "key.json"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    assert len(key("one")["pairs"]) == 2
    assert make(pigeon, rows, "one").exit_code == 6
    loud = pigeon(
        "study", "make", "--requests", ".", "--row", rows[0], "--row", rows[1], "--out", "all", "--count", "9", "--json"
    )
    assert json.loads(loud.stdout) == key("all") and "3 pairs: no more requests" in loud.stderr


def test_votes_are_counted_with_wilsons_interval(pigeon, rows: tuple[str, str]) -> None:
    make(pigeon, rows)
    sides = {pair["number"]: "left" if pair["left"] == "secret-one" else "right" for pair in key()["pairs"]}
    other = {"left": "right", "right": "left"}
    first = answer("1.json", sides, "ann")
    second = answer("2.json", {1: sides[1], 2: other[sides[2]], 3: "tie"}, "bob")
    result = pigeon("study", "count", "--key", "study/key.json", first, second)
    assert (result.exit_code, result.stderr) == (0, "")
    # 4 of 5 and 1 of 5: Wilson's 95% intervals.
    assert result.stdout.splitlines() == [
        "row\twins\tshare\tlow\thigh",
        "secret-one\t4\t0.800\t0.376\t0.964",
        "secret-two\t1\t0.200\t0.036\t0.624",
        "no difference\t1\t-\t-\t-",
        "6 answers by 2 raters",
        "The intervals take every vote as independent; several raters voted on the same pairs, so they are too narrow.",
    ]
    alone = pigeon("study", "count", "--key", "study/key.json", first)
    assert alone.stdout.splitlines()[-1] == "3 answers by 1 raters"
    document = json.loads(pigeon("study", "count", "--key", "study/key.json", first, second, "--json").stdout)
    assert (document["wins"], document["ties"], document["answers"], document["raters"]) == (
        {"secret-one": 4, "secret-two": 1}, 1, 6, 2,
    )  # fmt: skip
    assert document["shares"]["secret-one"]["low"] == pytest.approx(0.3755, abs=1e-4)


def test_only_ties_have_no_share(pigeon, rows: tuple[str, str]) -> None:
    make(pigeon, rows)
    result = pigeon("study", "count", "--key", "study/key.json", answer("1.json", {2: "tie"}, "ann"))
    assert result.exit_code == 0 and "secret-one\t0\t-\t-\t-" in result.stdout


def test_answers_that_do_not_count(pigeon, rows: tuple[str, str]) -> None:
    make(pigeon, rows)
    good = answer("good.json", {1: "left"}, "ann")
    bad = {
        "answers another study": answer("study.json", {1: "left"}, "bob", study="0" * 16),
        "answers of one rater": answer("twice.json", {1: "right"}, "ann"),
        "number.json holds": answer("number.json", {9: "left"}, "bob"),
        "pair.json holds": answer("pair.json", {1: "middle"}, "bob"),
        "version.json holds": answer("version.json", {1: "left"}, "bob", version=2),
        "double.json holds": answer("double.json", {}, "bob", answers=[{"pair": 1, "choice": "left"}] * 2),
        "rater.json holds": answer("rater.json", {1: "left"}, "bob", rater=None),
        "list.json holds": answer("list.json", {}, "bob", answers=3),
        "cannot read nowhere.json": "nowhere.json",
        "is no JSON file": "requests.jsonl",
    }
    for says, path in bad.items():
        result = pigeon("study", "count", "--key", "study/key.json", good, path)
        assert (result.exit_code, result.stdout) == (5, "") and says in result.stderr, says
    result = pigeon("study", "count", "--key", good, good)
    assert result.exit_code == 5 and "no key of a study" in result.stderr


def test_errors_of_make(pigeon, rows: tuple[str, str]) -> None:
    assert make(pigeon, rows[:1]).exit_code == 2
    assert make(pigeon, (*rows, "c=a")).exit_code == 2
    Path("empty").mkdir()
    result = make(pigeon, (rows[0], "e=empty"))
    assert result.exit_code == 5 and "no request has an image in both" in result.stderr
    assert not Path("study").exists() and os.listdir("empty") == []
