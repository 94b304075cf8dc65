"""Two downloads of one model at the same time: one works, the other waits and finds it done."""

from __future__ import annotations

import threading

from tests.download.conftest import BIG, Downloader
from tests.download.hub_server import Fault, Hub, sha256
from tests.download.test_kill import KILLED, official_layout, start


def test_the_second_process_waits_and_fetches_nothing(hub: Hub, tmp_path) -> None:
    hub.repositories["maker/lavit"] = official_layout()
    hub.faults[KILLED] = [Fault(cut=1000, hold=True)]
    first = start(hub, tmp_path)
    assert hub.held.wait(30)
    second = start(hub, tmp_path)
    assert second.stderr is not None
    while "waiting" not in (line := second.stderr.readline()):
        assert line, "the second process ended without waiting"
    hub.release.set()
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    folder = tmp_path / "cache" / "lavit-7b-v2"
    assert outputs == [f"{folder}\n"] * 2
    assert {path: (folder / path).read_bytes() for path in official_layout()} == official_layout()
    held = [
        asked for asked in hub.asked if asked.server == "cdn" and asked.path.endswith(sha256(official_layout()[KILLED]))
    ]
    assert [asked.start for asked in held] == [0, 1000]


def test_the_second_goes_on_where_the_first_failed(download: Downloader, hub: Hub, wanted) -> None:
    hub.faults[BIG] = [Fault(cut=100_000, hold=True), Fault(403)]
    failures: list[Exception] = []

    def run() -> None:
        try:
            download()
        except Exception as error:
            failures.append(error)

    first, second = threading.Thread(target=run), threading.Thread(target=run)
    first.start()
    assert hub.held.wait(30)
    second.start()
    hub.release.set()
    first.join(30)
    second.join(30)
    assert [type(error).__name__ for error in failures] == ["WeightsError"]
    download.check_complete(wanted)
    assert [asked.start for asked in hub.asked if asked.server == "cdn"] == [0, 100_000, 100_000]
