"""A server that answers like Google Drive: a folder's page, a page that asks about large files, a page that refuses."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from safetensors.torch import load_file

from pigeon_cli.weights import drive
from pigeon_cli.weights.sources import Access
from tests.download.conftest import Downloader, tiny_catalog
from tests.download.test_alignment import CONFIG, LORA, REST, STAGE_1, saved
from tests.download.test_fetch import failure

pytest.importorskip("gdown", reason="the extra 'drive' is not installed")
requests = pytest.importorskip("requests")

FOLDER = "1Hax0ZubvHqaGvUROVzD32_iKPpi8mYh1"
QUOTA = '<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>'


def identifier(path: str) -> str:
    return re.sub(r"\W", "-", path).ljust(30, "x")


@dataclass
class Site:
    """Files by path; ``refused`` ones show the quota page; ``cut`` breaks the next bytes off after so many."""

    files: dict[str, bytes]
    address: str = ""
    refused: set[str] = field(default_factory=set)
    cut: int | None = None
    pages: set[str] = field(default_factory=set)
    """Paths that are answered with a page behind the page that asks, too."""
    sent: list[tuple[str, int]] = field(default_factory=list)

    def folder_page(self, folder: str) -> str:
        """What lies directly in the folder whose path is ``folder``."""
        names = sorted({path.removeprefix(folder).partition("/")[0] for path in self.files if path.startswith(folder)})
        links = []
        for name in names:
            path = f"{folder}{name}"
            kind = (
                f"file/d/{identifier(path)}/view" if path in self.files else f"drive/folders/{identifier(path + '/')}"
            )
            links.append(f'<a href="https://drive.google.com/{kind}">{name}</a>')
        title = folder.rstrip("/").rpartition("/")[2] or "shared"
        return f"<html><head><title>{title}</title></head><body>{''.join(links)}</body></html>"

    def path(self, wanted: str) -> str:
        folders = {f"{'/'.join(path.split('/')[:depth])}/" for path in self.files for depth in range(1, 4)}
        return next(path for path in (*self.files, *folders) if identifier(path) == wanted)

    def warning_page(self, wanted: str) -> str:
        inputs = "".join(
            f'<input type="hidden" name="{name}" value="{value}">' for name, value in (("id", wanted), ("confirm", "t"))
        )
        return f'<html><form id="download-form" action="{self.address}/download" method="get">{inputs}</form></html>'


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        wanted = parse_qs(url.query)["id"][0]
        if url.path == "/embeddedfolderview":
            self._page(self.site.folder_page("" if wanted == FOLDER else self.site.path(wanted)))
        elif self.site.path(wanted) in self.site.refused:
            self._page(QUOTA)
        elif url.path == "/uc" and self.site.path(wanted).endswith(".bin"):
            self._page(self.site.warning_page(wanted))
        elif self.site.path(wanted) in self.site.pages:
            self._page("<html>Sorry, we are unable to process this now.</html>")
        else:
            self._file(self.site.path(wanted))

    def _page(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _file(self, path: str) -> None:
        data = self.site.files[path]
        start = int((re.findall(r"\d+", self.headers.get("Range", "")) or ["0"])[0])
        self.site.sent.append((path, start))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end, self.site.cut = self.site.cut, None
        self.wfile.write(data[start:end])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Drive on 127.0.0.1, for us and for gdown, with one checkpoint in a folder."""
    files = {f"checkpoint-7/{name}": CONFIG for name in [*STAGE_1, *LORA, *REST]}
    for name in files:
        if name.endswith(".bin"):
            files[name] = saved({name: torch.ones(500)})
    site = Site(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(drive, "SITE", site.address)
    get = requests.Session.get
    monkeypatch.setattr(
        requests.Session,
        "get",
        lambda self, url, **more: get(self, url.replace("https://drive.google.com", site.address), **more),
    )
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture
def drive_download(tmp_path: Path, site: Site, pauses: list[float]) -> Downloader:
    return Downloader(tmp_path / "cache", Access(), tiny_catalog(source=f"drive:{FOLDER}", alignment="sticker"))


def check(download: Downloader) -> None:
    assert download.folder.state == "complete"
    parts = {"mask_generator": STAGE_1[0], "adapter": STAGE_1[1], "lora": LORA[1]}
    tensors = load_file(download.folder.path / "alignment.safetensors")
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        f"{part}.checkpoint-7/{name}": [1.0] * 500 for part, name in parts.items()
    }


def test_only_what_is_needed_is_fetched_through_the_warning_page(drive_download: Downloader, site: Site) -> None:
    manifest = drive_download()
    check(drive_download)
    assert manifest.source == f"drive:{FOLDER}"
    assert {path for path, _ in site.sent} == {f"checkpoint-7/{name}" for name in (*STAGE_1, *LORA)}


def test_a_broken_connection_goes_on_where_it_broke(drive_download: Downloader, site: Site) -> None:
    site.cut = 1000
    drive_download()
    check(drive_download)
    assert site.sent[:2] == [(f"checkpoint-7/{STAGE_1[0]}", 0), (f"checkpoint-7/{STAGE_1[0]}", 1000)]


def test_a_used_up_quota_is_told_in_the_words_of_drive(drive_download: Downloader, site: Site) -> None:
    site.refused = {"checkpoint-7/adapter/pytorch_model.bin"}
    error = failure(drive_download)
    assert "adapter/pytorch_model.bin" in error.message and "Too many users" in error.message
    assert "--source" in error.hint
    assert drive_download.folder.state == "incomplete"
    site.refused = set()
    site.sent.clear()
    drive_download()
    check(drive_download)
    assert STAGE_1[0] not in {path.removeprefix("checkpoint-7/") for path, _ in site.sent}, "it was done"


def test_a_page_in_place_of_a_file_is_not_taken_for_it(drive_download: Downloader, site: Site) -> None:
    path = f"checkpoint-7/{STAGE_1[1]}"
    site.pages = {path}
    error = failure(drive_download)
    assert STAGE_1[1] in error.message and "web page" in error.message and "--source" in error.hint
    site.pages = set()
    drive_download()
    check(drive_download)


@pytest.mark.parametrize(
    ("name", "content"), [(STAGE_1[1], b"no pickle"), (LORA[0], b"no json"), (LORA[0], b"{}")], ids=str
)
def test_a_file_that_turns_out_to_be_another_is_fetched_again_by_the_next_run(
    drive_download: Downloader, site: Site, name: str, content: bytes
) -> None:
    path = f"checkpoint-7/{name}"
    right, site.files[path] = site.files[path], content
    assert name.rpartition("/")[2] in failure(drive_download).message
    site.files[path] = right
    drive_download()
    check(drive_download)


def test_a_private_folder_is_an_error_that_names_it(
    drive_download: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Site, "folder_page", lambda self, folder: "<html>Sign in</html>")
    error = failure(drive_download)
    assert FOLDER in error.message and "--source" in error.hint


def test_offline_is_a_clear_error(drive_download: Downloader) -> None:
    drive_download.access = Access(offline=True)
    assert "offline" in failure(drive_download).message
