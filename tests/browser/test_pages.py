"""Both pages in a real browser, opened from disk as people open them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pigeon_cli.cli.main import app
from tests.tiny_requests import write_requests, write_row

from .conftest import SECONDS, Browser


def pigeon(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, list(map(os.fspath, arguments)))
    assert result.exit_code == 0, result.stderr
    return result


@pytest.fixture
def rows(tmp_path: Path) -> tuple[str, ...]:
    write_requests(tmp_path)
    second = write_row(tmp_path / "b", ("blue", None, "orange", "red"))
    return "--row", f"ours={write_row(tmp_path / 'a')}", "--row", f"theirs={second}"


def saved(folder: Path) -> Path:
    """The one finished download; Chromium writes it under another name first."""
    for _ in range(10 * SECONDS):
        if found := list(folder.glob("answers-*.json")):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"nothing was saved: {os.listdir(folder)}")


def test_the_evaluation_page_shows_every_picture(browser: Browser, tmp_path: Path, rows: tuple[str, ...]) -> None:
    pigeon("evaluate", "--data", tmp_path, *rows, "--out", tmp_path / "out", "--device", "cpu", "--quiet")
    browser.open(tmp_path / "out" / "page.html")
    sizes = browser.run("Array.from(document.images, image => image.complete && image.naturalWidth)")
    assert len(sizes) == 4 * 2 + 3 * 2 + 7 + 1 and all(sizes)
    assert browser.run("document.querySelectorAll('.gap').length") == 1
    assert browser.run("getComputedStyle(document.querySelector('.strip')).display") == "flex"
    assert browser.run("document.querySelectorAll('#means tbody tr').length") == 2
    assert "<ball>" in browser.run("document.querySelector('article h3').textContent")
    assert browser.complaints() == []
    assert browser.screenshot(tmp_path / "page.png").stat().st_size > 10_000


def test_a_study_by_keys_and_clicks_saves_what_was_chosen(
    browser: Browser, tmp_path: Path, rows: tuple[str, ...]
) -> None:
    study = tmp_path / "study"
    pigeon("study", "make", "--requests", tmp_path, *rows, "--out", study, "--quiet")
    browser.open(study / "study.html")
    assert browser.run("document.querySelector('#progress').textContent") == "1 of 3"
    assert browser.run("document.querySelector('#save').disabled")
    shown = browser.run("Array.from(document.querySelectorAll('#pair img'), image => image.naturalWidth)")
    assert shown == [48, 48]
    assert browser.screenshot(tmp_path / "study.png").stat().st_size > 10_000
    browser.press("left")
    browser.press("b")
    assert browser.run("document.querySelector('#left').getAttribute('aria-pressed')") == "true"
    browser.click("#right")
    browser.press("t")
    browser.click("#left")
    assert browser.run("document.querySelector('#question').hidden && !document.querySelector('#end').hidden")
    assert browser.complaints() == []
    browser.press("s")
    answers = saved(browser.downloads)
    found = json.loads(answers.read_bytes())
    assert found["answers"] == [
        {"pair": 1, "choice": "right"}, {"pair": 2, "choice": "tie"}, {"pair": 3, "choice": "left"},
    ]  # fmt: skip
    assert answers.name == f"answers-{found['study']}-{found['rater']}.json"
    key = json.loads((study / "key.json").read_bytes())
    votes = [key["pairs"][0]["right"], key["pairs"][2]["left"]]
    counted = json.loads(pigeon("study", "count", "--key", study / "key.json", answers, "--json").stdout)
    assert counted["wins"] == {row: votes.count(row) for row in ("ours", "theirs")}
    assert (counted["ties"], counted["raters"]) == (1, 1)


PROGRESS = "document.querySelector('#progress').textContent"
STAYS = "window.dispatchEvent(new Event('beforeunload', {cancelable: true}))"


def begin_again(browser: Browser) -> None:
    """What a page does when it is opened. Opening it for real would test when Chromium writes what it stores: it has
    lost a fresh entry on a busy machine."""
    browser.run("[restore(), show()]")


def test_answers_and_rater_are_restored_from_storage(browser: Browser, tmp_path: Path, rows: tuple[str, ...]) -> None:
    study = tmp_path / "study"
    pigeon("study", "make", "--requests", tmp_path, *rows, "--out", study, "--seed", "7", "--quiet")
    browser.open(study / "study.html")
    rater = browser.run("rater")
    assert browser.run(STAYS) is True
    browser.press("left")
    browser.press("t")
    # Whoever leaves now is warned.
    assert browser.run(STAYS) is False
    begin_again(browser)
    assert (browser.run("rater"), browser.run(PROGRESS), browser.run(STAYS)) == (rater, "3 of 3", False)
    browser.press("right")
    assert browser.run("document.querySelector('#another').disabled")
    browser.press("s")
    assert browser.run(STAYS) is True
    begin_again(browser)
    assert browser.run("[rater, ...choices]") == [rater, "left", "tie", "right"]
    assert browser.run(STAYS) is True and not browser.run("document.querySelector('#question').offsetParent")
    browser.click("#another")
    assert browser.run(PROGRESS) == "1 of 3" and browser.run("rater") != rater
    assert browser.run("choices") == [None] * 3
    assert browser.complaints() == []


def test_no_slip_of_the_hand_answers_a_pair(browser: Browser, tmp_path: Path, rows: tuple[str, ...]) -> None:
    pigeon("study", "make", "--requests", tmp_path, *rows, "--out", tmp_path / "s", "--seed", "8", "--quiet")
    browser.open(tmp_path / "s" / "study.html")
    for key in ("up", "down"):
        browser.press(key)
    assert browser.run(PROGRESS) == "1 of 3"
    browser.double_click("#left")
    assert browser.run(PROGRESS) == "2 of 3"
    for key in ("t", "Enter"):
        event = f"new KeyboardEvent('keydown', {{key: '{key}', repeat: true, bubbles: true, cancelable: true}})"
        # An event whose default is prevented presses no button.
        assert browser.run(f"document.querySelector('#left').dispatchEvent({event})") is (key != "Enter")
    assert browser.run(PROGRESS) == "2 of 3"


def test_a_script_that_the_page_does_not_bring_cannot_run(browser: Browser, tmp_path: Path) -> None:
    write_requests(tmp_path)
    row = write_row(tmp_path / "a")
    pigeon("study", "make", "--requests", tmp_path, "--row", f"a={row}", "--row", f"b={row}", "--out", tmp_path / "s")
    page = tmp_path / "s" / "study.html"
    page.write_text(page.read_text("utf-8").replace("</main>", "</main><script>document.title = 'taken'</script>"))
    browser.open(page)
    assert browser.run("document.title") == "Which picture fits?"
    assert any("Content Security Policy" in message for message in browser.complaints())
