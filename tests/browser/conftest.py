"""One headless Chromium for all tests of pages, driven over the WebDriver protocol; skipped by name without it."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1200,900",
)  # fmt: skip
SECONDS = 60
ARROWS = {"left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015"}


class Browser:
    """A session of ChromeDriver."""

    def __init__(self, client: httpx.Client, session: str, downloads: Path) -> None:
        self._client, self._session, self.downloads = client, session, downloads

    def open(self, page: Path) -> None:
        self._call("url", {"url": page.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self._call("execute/sync", {"script": f"return {script}", "args": []})

    def press(self, key: str) -> None:
        """One stroke of an arrow, or of a letter."""
        value = ARROWS.get(key, key)
        strokes = [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self._call("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def double_click(self, selector: str) -> None:
        origin = self._call("element", {"using": "css selector", "value": selector})
        strokes = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}] * 2
        moved = [{"type": "pointerMove", "origin": origin, "x": 0, "y": 0}, *strokes]
        self._call("actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moved}]})

    def click(self, selector: str) -> None:
        element = self._call("element", {"using": "css selector", "value": selector})
        self._call(f"element/{next(iter(element.values()))}/click", {})

    def complaints(self) -> list[str]:
        """What the console has said since the last call: failed loads, errors, violations of the policy."""
        return [entry["message"] for entry in self._call("se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> Path:
        data = self._client.get(f"session/{self._session}/screenshot").json()["value"]
        path.write_bytes(base64.b64decode(data))
        return path

    def _call(self, what: str, body: dict[str, Any]) -> Any:
        answer = self._client.post(f"session/{self._session}/{what}", json=body).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(answer["message"])
        return answer


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium chromium-driver)")
    folder = tmp_path_factory.mktemp("browser")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        started = next(line for line in process.stdout if "started successfully on port" in line)
        port = started.rstrip().rstrip(".").rpartition(" ")[2]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/", timeout=SECONDS, trust_env=False) as client:
            yield from _session(client, chromium, folder)
    finally:
        process.terminate()
        process.wait(SECONDS)


def _session(client: httpx.Client, chromium: str, folder: Path) -> Iterator[Browser]:
    (folder / "downloads").mkdir()
    options = {
        "binary": chromium,
        "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"],
        "prefs": {"download.default_directory": str(folder / "downloads"), "download.prompt_for_download": False},
    }
    asked = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    answer = client.post("session", json={"capabilities": {"alwaysMatch": asked}}).json()["value"]
    assert "sessionId" in answer, answer
    try:
        yield Browser(client, answer["sessionId"], folder / "downloads")
    finally:
        client.delete(f"session/{answer['sessionId']}")
