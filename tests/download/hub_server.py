"""A hub on 127.0.0.1: lists repositories with sizes and hashes, redirects large files to another server, has faults."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "b617318" + "0" * 33
LARGE = (".bin", ".safetensors", ".model")


@dataclass(frozen=True)
class Fault:
    """What happens to one request for a file's bytes, instead of a right answer."""

    status: int = 0
    """Answered without the file."""
    headers: tuple[tuple[str, str], ...] = ()
    cut: int | None = None
    """The connection breaks after so many bytes of the file, counted from its start."""
    hold: bool = False
    """At ``cut`` the server waits until the client is gone, after telling ``Hub.held``."""
    whole: bool = False
    """Range is ignored: status 200."""
    instead: bytes | None = None
    """Another content."""


@dataclass(frozen=True)
class Asked:
    """One request."""

    server: str
    path: str
    start: int
    token: str


@dataclass
class Hub:
    """The content, the faults to come (by file name, first come first served) and what was asked."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    listing_faults: list[Fault] = field(default_factory=list)
    token: str = ""
    """When set, everything but the CDN asks for it."""
    asked: list[Asked] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    endpoint: str = ""
    cdn: str = ""

    def content(self, digest: str) -> tuple[str, bytes]:
        everything = ((name, data) for files in self.repositories.values() for name, data in files.items())
        return next((name, data) for name, data in everything if sha256(data) == digest)

    def bytes_asked(self, name: str) -> list[int]:
        """From where the bytes of a file were asked for."""
        return [asked.start for asked in self.asked if asked.path.endswith(name)]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Hub and CDN on two ports, that is, two origins."""
    hub = Hub()
    servers = [_server(hub, kind) for kind in ("hub", "cdn")]
    hub.endpoint, hub.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.release.set()
        for server in servers:
            server.shutdown()
            server.server_close()


def _server(hub: Hub, kind: str) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        daemon_threads = True

    return Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub, "kind": kind}))


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    kind: str

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        start = int((re.findall(r"bytes=(\d+)-", self.headers.get("Range", "")) or ["0"])[0])
        token = self.headers.get("Authorization", "")
        self.hub.asked.append(Asked(self.kind, path, start, token))
        if self.kind == "cdn":
            name, data = self.hub.content(path.rpartition("/")[2])
            self._file(name, data, start)
        elif self.hub.token and token != f"Bearer {self.hub.token}":
            self._short(401)
        elif found := re.fullmatch(r"/api/models/(.+)/revision/(.+)", path):
            self._listing(*found.groups())
        elif found := re.fullmatch(r"/api/resolve-cache/([^/]+/[^/]+)/[^/]+/(.+)", path):
            repository, name = found.groups()
            self._file(name, self.hub.repositories[repository][name], start)
        elif found := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*found.groups())
        else:
            self._short(404)

    def _listing(self, repository: str, revision: str) -> None:
        if self.hub.listing_faults:
            fault = self.hub.listing_faults.pop(0)
            self._short(fault.status, fault.headers, fault.instead or b"")
        elif repository not in self.hub.repositories:
            self._short(404, (("X-Error-Code", "RepoNotFound"),))
        elif revision not in ("main", COMMIT):
            self._short(404, (("X-Error-Code", "RevisionNotFound"),))
        else:
            siblings = [_sibling(name, data) for name, data in self.hub.repositories[repository].items()]
            self._short(200, body=json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())

    def _resolve(self, repository: str, revision: str, name: str) -> None:
        data = self.hub.repositories.get(repository, {}).get(name)
        if data is None or revision != COMMIT:
            self._short(404, (("X-Error-Code", "EntryNotFound"),))
        elif name.endswith(LARGE):
            linked = (("X-Linked-Etag", f'"{sha256(data)}"'), ("X-Linked-Size", str(len(data))))
            place = ("Location", f"{self.hub.cdn}/blobs/{sha256(data)}")
            self._short(302, (("X-Repo-Commit", COMMIT), *linked, place))
        else:
            self._short(307, (("Location", f"/api/resolve-cache/{repository}/{revision}/{name}"),))

    def _file(self, name: str, data: bytes, start: int) -> None:
        waiting = self.hub.faults[name]
        fault = waiting.pop(0) if waiting else Fault()
        if fault.status:
            self._short(fault.status, fault.headers)
            return
        data = data if fault.instead is None else fault.instead
        if start >= len(data) and start and not fault.whole:
            self._short(416, (("Content-Range", f"bytes */{len(data)}"),))
            return
        if "Range" in self.headers and not fault.whole:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            start = 0
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", f'"{sha256(data)}"')
        self.end_headers()
        self.wfile.write(data[start : len(data) if fault.cut is None else max(start, fault.cut)])
        self.wfile.flush()
        if fault.hold:
            self.hub.held.set()
            self.hub.release.wait(30)

    def _short(self, status: int, headers: tuple[tuple[str, str], ...] = (), body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _sibling(name: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
    if name.endswith(LARGE):
        entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
    return entry
