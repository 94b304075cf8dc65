"""A hub of its own for each test, a cache of its own, and nothing of the user's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from pigeon_cli.cli.main import app
from pigeon_cli.weights.cache import PartFolder
from pigeon_cli.weights.catalog import Catalog, parse_catalog
from pigeon_cli.weights.download import Settings, carry_out
from pigeon_cli.weights.listener import Listener
from pigeon_cli.weights.manifest import Manifest
from pigeon_cli.weights.plan import Plan, make_plan
from pigeon_cli.weights.sources import Access
from tests.download.hub_server import Hub, running_hub

REPOSITORY = "maker/tiny"
BIG = "weights/model.safetensors"
SMALL = "config.json"


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token, cache or switch of the machine; huggingface_hub read them when it was imported."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIGEON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """One repository with a large and a small file, and one that nobody wants."""
    with running_hub() as hub:
        content = random.Random(0).randbytes(300_000)
        hub.repositories[REPOSITORY] = {SMALL: b'{"width": 8}\n', BIG: content, "visual_weight.bin": b"unwanted"}
        yield hub


def tiny_catalog(*patterns: str, source: str = f"hub:{REPOSITORY}@main", **more: object) -> Catalog:
    """A catalog with the one model ``tiny``."""
    files = [{"any": [pattern]} for pattern in patterns or (SMALL, BIG)]
    part = {"summary": "a tiny model", "source": source, "files": files, **more}
    return parse_catalog({"licences": {}, "parts": {"tiny": part}, "models": {}})


@dataclass
class Downloader:
    """``pigeon download tiny`` without the command line."""

    root: Path
    access: Access
    catalog: Catalog = field(default_factory=tiny_catalog)
    pauses: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def folder(self) -> PartFolder:
        return PartFolder(self.root, "tiny")

    def plan(self, keep: bool = False) -> Plan:
        return make_plan(self.catalog.model("tiny"), self.root, {}, self.access, keep, self.notes.append)

    def __call__(self, keep: bool = False) -> Manifest:
        listener = Listener(self.notes.append, self.warnings.append)
        (manifest,) = carry_out(self.plan(keep), Settings(True, keep), listener)
        return manifest

    def check_complete(self, files: dict[str, bytes]) -> None:
        """The folder holds these files and the manifest, nothing else."""
        assert self.folder.state == "complete"
        held = {str(path.relative_to(self.folder.path)) for path in self.folder.path.rglob("*") if path.is_file()}
        assert held == {*files, "manifest.json"}
        for name, data in files.items():
            assert (self.folder.path / name).read_bytes() == data


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were to be waited before another try."""
    pauses: list[float] = []
    monkeypatch.setattr("pigeon_cli.weights.retry.sleep", pauses.append)
    return pauses


@pytest.fixture
def download(hub: Hub, tmp_path: Path, pauses: list[float]) -> Downloader:
    return Downloader(tmp_path / "cache", Access(hub.endpoint), pauses=pauses)


@pytest.fixture
def wanted(hub: Hub) -> dict[str, bytes]:
    """What a complete download of ``tiny`` holds."""
    return {name: hub.repositories[REPOSITORY][name] for name in (SMALL, BIG)}


@pytest.fixture
def pigeon() -> Callable[..., Result]:
    """Runs ``pigeon`` in this process, with stdout and stderr apart."""

    def run(*arguments: str | Path, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(map(str, arguments)), input=stdin)

    return run
