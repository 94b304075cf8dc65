"""The network and its faults: after each, the cache is complete, or the next run completes it from where it stood."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pigeon_cli.core.errors import PigeonError, WeightsError
from pigeon_cli.weights.fetch import fetch
from pigeon_cli.weights.listener import Listener
from pigeon_cli.weights.retry import WAITS, retry_after
from pigeon_cli.weights.sources import Access, SourceFile
from tests.download.conftest import BIG, REPOSITORY, SMALL, Downloader, tiny_catalog
from tests.download.hub_server import COMMIT, Fault, Hub, sha256

HALF = 150_000


def failure(action: Callable[[], object], kind: type[PigeonError] = WeightsError) -> PigeonError:
    with pytest.raises(kind) as caught:
        action()
    assert caught.value.hint, "every error says what to do next"
    return caught.value


def test_a_fresh_download_is_complete_and_says_where_it_came_from(download: Downloader, hub: Hub, wanted) -> None:
    manifest = download()
    download.check_complete(wanted)
    assert (manifest.source, manifest.commit) == (f"hub:{REPOSITORY}@main", COMMIT)
    assert {file.path: file.sha256 for file in manifest.files} == {name: sha256(data) for name, data in wanted.items()}
    assert {asked.path for asked in hub.asked if "visual_weight" in asked.path} == set()


def test_a_complete_model_asks_for_nothing(download: Downloader, hub: Hub) -> None:
    download()
    hub.asked.clear()
    download()
    assert hub.asked == []


def test_a_broken_connection_goes_on_where_it_broke(download: Downloader, hub: Hub, wanted) -> None:
    hub.faults[BIG] = [Fault(cut=HALF)]
    download()
    download.check_complete(wanted)
    assert [asked.start for asked in hub.asked if asked.server == "cdn"] == [0, HALF]
    assert download.pauses == [WAITS[0]]


def test_a_later_run_goes_on_where_the_earlier_gave_up(download: Downloader, hub: Hub, wanted) -> None:
    hub.faults[BIG] = [Fault(cut=HALF), *[Fault(500)] * len(WAITS)]
    error = failure(download)
    assert BIG in error.message and "kept and resumed" in error.hint
    assert download.folder.state == "incomplete"
    hub.asked.clear()
    download()
    download.check_complete(wanted)
    assert [asked.start for asked in hub.asked if asked.server == "cdn"] == [HALF]


def test_a_server_that_ignores_ranges_is_read_from_the_start(download: Downloader, hub: Hub, wanted) -> None:
    hub.faults[BIG] = [Fault(cut=HALF), Fault(whole=True)]
    download()
    download.check_complete(wanted)


def test_a_wrong_hash_names_the_file_and_leaves_nothing_of_it(download: Downloader, hub: Hub, wanted) -> None:
    right = hub.repositories[REPOSITORY][BIG]
    wrong = bytes([right[0] ^ 1]) + right[1:]
    hub.faults[BIG] = [Fault(instead=wrong)]
    error = failure(download)
    assert BIG in error.message and sha256(wrong) in error.message and sha256(right) in error.message
    assert download.folder.state == "incomplete"
    assert [path.name for path in download.folder.path.rglob("*.part")] == ["manifest.json.part"]
    download()
    download.check_complete(wanted)


def test_a_wrong_hash_of_a_small_file_is_found_by_the_hash_of_git(download: Downloader, hub: Hub, wanted) -> None:
    hub.faults[SMALL] = [Fault(instead=b'{"width": 9}\n')]
    assert "git-sha1" in failure(download).message
    download()
    download.check_complete(wanted)


def test_damage_in_what_an_earlier_run_left_costs_one_more_fetch(download: Downloader, hub: Hub, wanted) -> None:
    hub.faults[BIG] = [Fault(cut=HALF), *[Fault(500)] * len(WAITS)]
    failure(download)
    (part,) = (download.folder.path / "weights").glob("*.part")
    part.write_bytes(bytes(HALF))
    download()
    download.check_complete(wanted)
    assert any("starting over" in note for note in download.notes)


@pytest.mark.parametrize("length", [HALF, 400_000])
def test_a_file_of_another_size_than_listed_is_refused(download: Downloader, hub: Hub, wanted, length: int) -> None:
    hub.faults[BIG] = [Fault(instead=bytes(length))]
    assert f"the server has {length} bytes" in failure(download).message
    download()
    download.check_complete(wanted)


@pytest.mark.parametrize(("status", "says"), [(401, "--token"), (403, "terms"), (404, "--source")])
@pytest.mark.parametrize("place", ["list", "file"])
def test_a_refusal_is_not_repeated(download: Downloader, hub: Hub, wanted, status: int, says: str, place: str) -> None:
    faults = hub.listing_faults if place == "list" else hub.faults[BIG]
    faults.append(Fault(status))
    error = failure(download)
    assert str(status) in error.message and says in error.hint
    assert download.pauses == []
    download()
    download.check_complete(wanted)


def test_too_many_requests_waits_as_long_as_it_is_told(download: Downloader, hub: Hub, wanted) -> None:
    hub.faults[BIG] = [Fault(429, (("Retry-After", "7"),)), Fault(429)]
    download()
    download.check_complete(wanted)
    assert download.pauses == [7.0, WAITS[1]]


def test_a_server_that_wants_an_hour_is_not_waited_for(download: Downloader, hub: Hub, wanted) -> None:
    hub.faults[BIG] = [Fault(429, (("Retry-After", "3600"),))]
    assert "3600 s" in failure(download).message
    download()
    download.check_complete(wanted)


def test_retry_after_may_be_a_date() -> None:
    def now() -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    assert retry_after("Thu, 01 Jan 2026 00:00:30 GMT", now) == 30
    assert retry_after("Wed, 31 Dec 2025 00:00:00 GMT", now) == 0
    assert retry_after("soon") is None


def test_an_error_of_the_server_passes(download: Downloader, hub: Hub, wanted) -> None:
    hub.faults[BIG] = [Fault(500), Fault(503)]
    download()
    download.check_complete(wanted)
    assert download.pauses == list(WAITS[:2])


def test_the_list_of_files_is_asked_for_with_the_same_patience(download: Downloader, hub: Hub, wanted) -> None:
    hub.listing_faults = [Fault(503), Fault(429, (("Retry-After", "3"),))]
    download()
    download.check_complete(wanted)
    assert download.pauses == [WAITS[0], 3.0]
    assert [note for note in download.notes if "503" in note]


def test_an_address_that_is_none_is_not_tried_twice(download: Downloader) -> None:
    download.access = Access("hub.example")
    assert "--endpoint" in failure(download).hint
    assert download.pauses == []


def test_new_bytes_give_new_patience(download: Downloader, hub: Hub, wanted) -> None:
    cuts = [Fault(cut=place) for place in range(20_000, 300_000, 20_000)]
    hub.faults[BIG] = cuts
    assert len(cuts) > len(WAITS)
    download()
    download.check_complete(wanted)


def test_nobody_listens(download: Downloader, hub: Hub, monkeypatch: pytest.MonkeyPatch, wanted) -> None:
    monkeypatch.setattr("pigeon_cli.weights.retry.WAITS", ())
    there, download.access = download.access, Access("http://127.0.0.1:9")
    assert "connection failed" in failure(download).message
    download.access = there
    download()
    download.check_complete(wanted)


def test_a_file_of_unknown_size_that_is_whole_is_not_fetched_again(hub: Hub, tmp_path: Path, wanted) -> None:
    url = f"{hub.endpoint}/{REPOSITORY}/resolve/{COMMIT}/{BIG}"
    file = SourceFile(BIG, "drive:1", address=lambda: url)
    for _ in range(2):
        part, tally = fetch(file, tmp_path / "model", Listener())
        assert part.read_bytes() == wanted[BIG]
        assert tally.sha256 == sha256(wanted[BIG])
    assert [asked.start for asked in hub.asked if asked.server == "cdn"] == [0, len(wanted[BIG])]


def test_what_killed_runs_and_other_content_left_is_cleared_away(download: Downloader, hub: Hub, wanted) -> None:
    hub.faults[BIG] = [Fault(403)]
    failure(download)
    weights = download.folder.path / "weights"
    for name in (
        ".model.safetensors.123.new",
        ".tmpl0p4XQ",
        "model.safetensors.0123456789ab.part",
        "older.safetensors",
    ):
        (weights / name).write_bytes(b"left")
    download()
    download.check_complete(wanted)


def test_the_token_goes_to_the_hub_alone_and_is_not_kept(download: Downloader, hub: Hub, wanted) -> None:
    hub.token = "hf_secret"
    assert "401" in failure(download).message
    download.access = Access(hub.endpoint, "hf_secret")
    download()
    download.check_complete(wanted)
    assert {asked.token for asked in hub.asked if asked.server == "cdn"} == {""}
    assert "hf_secret" not in (download.folder.path / "manifest.json").read_text() + repr(download.plan())


@pytest.mark.parametrize("token", ["hf_secret\nmore", "hf_secret\x00", "hf_sécret"])
def test_a_token_that_cannot_be_sent_is_neither_tried_again_nor_quoted(download: Downloader, token: str) -> None:
    download.access = Access(download.access.endpoint, token)
    error = failure(download)
    assert download.pauses == [] and "--token" in error.hint
    assert not [line for line in traceback.format_exception(error) if "hf_s" in line or repr(token) in line]


@pytest.mark.parametrize("body", [b"<html>Sign in to this network</html>", b"\xff\xfe\x00", b"[]", b"{}"])
def test_a_list_of_files_that_is_none_is_said(download: Downloader, hub: Hub, wanted, body: bytes) -> None:
    hub.listing_faults = [Fault(200, instead=body)]
    error = failure(download)
    assert hub.endpoint in error.message and "--endpoint" in error.hint
    download()
    download.check_complete(wanted)


def test_a_commit_other_than_the_known_one_is_said(download: Downloader, hub: Hub) -> None:
    download.catalog = tiny_catalog(commit="b617318")
    download()
    assert download.warnings == []
    download.folder.remove()
    download.catalog = tiny_catalog(commit="0123456")
    download()
    (warning,) = download.warnings
    assert COMMIT[:12] in warning and "0123456" in warning
