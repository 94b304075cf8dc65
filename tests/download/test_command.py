"""``pigeon download`` as it is typed: grammar, streams, exit statuses, licences, JSON."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from pigeon_cli.cli.transfer import transfer_display
from pigeon_cli.weights.manifest import Manifest, StoredFile, complete
from tests.download.hub_server import COMMIT, Fault, Hub, sha256
from tests.download.test_alignment import CONFIG, LORA, STAGE_1, saved
from tests.download.test_kill import KILLED, official_layout, start

Pigeon = Callable[..., Result]
REPOSITORY = "maker/lavit"


@pytest.fixture
def source(hub: Hub) -> tuple[str, ...]:
    """The options that point at a tiny model in the official layout."""
    hub.repositories[REPOSITORY] = official_layout()
    return ("--source", f"hub:{REPOSITORY}", "--endpoint", hub.endpoint)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "lavit-7b-v2"


def test_the_folder_is_on_stdout_and_the_talk_on_stderr(pigeon: Pigeon, source, folder: Path) -> None:
    result = pigeon("download", "lavit-7b-v2", *source, "--accept-license")
    assert (result.exit_code, result.stdout) == (0, f"{folder}\n"), result.stderr
    for said in ("11 files from hub:maker/lavit@main", COMMIT[:12], "free in", "licence: LaVIT Community License"):
        assert said in result.stderr
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["commit"] == COMMIT and manifest["licence"]["name"].startswith("LaVIT Community License")


def test_options_may_come_before_the_model(pigeon: Pigeon, source, folder: Path) -> None:
    result = pigeon("download", "--accept-license", *source, "lavit-7b-v2")
    assert (result.exit_code, result.stdout) == (0, f"{folder}\n"), result.stderr


def test_without_consent_no_byte_is_fetched(pigeon: Pigeon, source, hub: Hub, folder: Path) -> None:
    result = pigeon("download", "lavit-7b-v2", *source)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "--accept-license" in result.stderr and "huggingface.co/rain1011" in result.stderr
    assert [asked.path for asked in hub.asked] == [f"/api/models/{REPOSITORY}/revision/main"]
    assert not folder.exists()


def test_consent_is_remembered_with_an_unfinished_download(pigeon: Pigeon, source, hub: Hub, folder: Path) -> None:
    hub.faults[KILLED] = [Fault(403)]
    failed = pigeon("download", "lavit-7b-v2", *source, "--accept-license")
    assert failed.exit_code == 3 and KILLED in failed.stderr
    result = pigeon("download", "lavit-7b-v2", *source)
    assert (result.exit_code, result.stdout) == (0, f"{folder}\n"), result.stderr
    assert "there already" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal of POSIX")
@pytest.mark.parametrize("answer", ["y", "n"])
def test_consent_is_asked_for_at_a_terminal(hub: Hub, source, folder: Path, tmp_path: Path, answer: str) -> None:
    terminal, ours = os.openpty()
    process = start(hub, tmp_path, stdin=ours, stderr=ours)
    os.close(ours)
    said = b""
    while not said.rstrip().endswith(b"[y/N]"):
        said += os.read(terminal, 1000)
    assert not folder.exists() and b"LaVIT Community License" in said
    os.write(terminal, answer.encode() + b"\n")
    reader = threading.Thread(target=read_all, args=(terminal,), daemon=True)
    reader.start()
    output = process.communicate(timeout=60)[0]
    assert (process.returncode, output) == ((0, f"{folder}\n") if answer == "y" else (3, ""))
    assert folder.exists() == (answer == "y")


def read_all(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 1000):
            pass


def test_a_combination_from_local_folders(pigeon: Pigeon, tmp_path: Path) -> None:
    scorer = ("model.safetensors", "config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
    alignment = {name: saved({name: torch.ones(1)}) if name.endswith(".bin") else CONFIG for name in (*STAGE_1, *LORA)}
    folders = {
        "lavit-7b-v2": official_layout(),
        "pigeon-sticker": {f"checkpoint-7/{name}": data for name, data in alignment.items()},
        "clip-vit-h-14": dict.fromkeys(scorer, b"{}"),
    }
    options = []
    for part, files in folders.items():
        for name, data in files.items():
            (tmp_path / "own" / part / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "own" / part / name).write_bytes(data)
        options += ["--source", f"{part}={tmp_path / 'own' / part}"]
    result = pigeon("download", "sticker", *options, "--accept-license", "--offline")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [str(tmp_path / "cache" / part) for part in folders]
    assert pigeon("download", "path", "sticker").stdout == result.stdout
    assert pigeon("download", "verify", "sticker").exit_code == 0


def test_remove_keeps_what_another_complete_model_needs(pigeon: Pigeon, tmp_path: Path) -> None:
    parts = ("lavit-7b-v2", "pigeon-sticker", "pigeon-poster", "clip-vit-h-14")
    for part in parts:
        (tmp_path / "cache" / part).mkdir(parents=True)
        complete(tmp_path / "cache" / part, Manifest(part, "here", "", None))
    removed = pigeon("download", "remove", "sticker")
    assert removed.stdout == f"{tmp_path / 'cache' / 'pigeon-sticker'}\n"
    assert "lavit-7b-v2 stays: poster needs it" in removed.stderr
    assert len(pigeon("download", "remove", "poster").stdout.splitlines()) == 3


@pytest.mark.parametrize("part", ["lavit-7b-v2", "clip-vit-h-14"])
def test_a_single_part_stays_while_a_complete_model_needs_it(pigeon: Pigeon, tmp_path: Path, part: str) -> None:
    for name in ("lavit-7b-v2", "pigeon-sticker", "clip-vit-h-14"):
        (tmp_path / "cache" / name).mkdir(parents=True)
        complete(tmp_path / "cache" / name, Manifest(name, "here", "", None))
    refused = pigeon("download", "remove", part)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"{part} stays: sticker needs it" in refused.stderr and "pigeon download remove sticker" in refused.stderr
    assert len(pigeon("download", "remove", "sticker").stdout.splitlines()) == 3


def test_verify_tells_what_it_found_before_it_names_the_part_that_is_not_there(pigeon: Pigeon, tmp_path: Path) -> None:
    for name in ("lavit-7b-v2", "pigeon-sticker"):
        folder = tmp_path / "cache" / name
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"right")
        complete(folder, Manifest(name, "here", "", None, (StoredFile("weights", 5, sha256(b"right"), ()),)))
    place = tmp_path / "cache" / "clip-vit-h-14"
    plain, told = pigeon("download", "verify", "sticker"), pigeon("download", "verify", "sticker", "--json")
    assert plain.exit_code == told.exit_code == 3
    assert "clip-vit-h-14 is not in the cache" in plain.stderr
    files = [tmp_path / "cache" / name / "weights" for name in ("lavit-7b-v2", "pigeon-sticker")]
    assert plain.stdout.splitlines() == [*(f"ok\t{path}" for path in files), f"absent\t{place}"]
    document = json.loads(told.stdout)
    assert [(file["path"], file["ok"]) for file in document["files"]] == [(str(path), True) for path in files]
    assert document["ok"] is False
    assert document["lacking"] == [{"part": "clip-vit-h-14", "state": "absent", "path": str(place)}]


def test_verify_names_a_file_that_cannot_be_read(
    pigeon: Pigeon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache" / "dinov2-large"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"right")
    files = (StoredFile("weights", 5, sha256(b"right"), ()),)
    complete(folder, Manifest("dinov2-large", "here", "", None, files))

    def fails(*_: object) -> object:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("pigeon_cli.weights.cache.read_into", fails)
    result = pigeon("download", "verify", "dinov2-large")
    assert result.exit_code == 3 and result.stdout == f"damaged\t{folder / 'weights'}\n"
    assert f"cannot be read: {os.strerror(errno.EIO)}" in result.stderr


@pytest.mark.parametrize(("token", "sent"), [("", ""), (" ", ""), ("hf_secret\n", "Bearer hf_secret")])
def test_a_token_may_come_with_a_line_end_or_be_empty(
    pigeon: Pigeon, source, hub: Hub, pauses: list[float], token: str, sent: str
) -> None:
    result = pigeon("download", "lavit-7b-v2", *source, "--token", token, "--dry-run")
    assert result.exit_code == 0 and pauses == [], result.stderr
    assert [asked.token for asked in hub.asked] == [sent]


@pytest.mark.parametrize("token", ["hf_secret\nmore", "hf_secret\x07", "hf_sécret"])
def test_a_token_that_is_none_is_refused_and_not_shown(pigeon: Pigeon, source, hub: Hub, token: str) -> None:
    result = pigeon("download", "lavit-7b-v2", *source, "--token", token, "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "") and "hf_s" not in result.stderr
    assert "the token" in result.stderr and hub.asked == []


def test_dry_run_lists_files_and_fetches_nothing(pigeon: Pigeon, source, hub: Hub, folder: Path) -> None:
    result = pigeon("download", "lavit-7b-v2", *source, "--dry-run")
    assert result.exit_code == 0
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert {path: int(size) for state, size, path in lines if state == "fetch"} == {
        str(folder / name): len(data) for name, data in official_layout().items()
    }
    assert len(hub.asked) == 1 and not folder.exists()


def test_json_is_one_document(pigeon: Pigeon, source, folder: Path) -> None:
    plan = json.loads(pigeon("download", "lavit-7b-v2", *source, "--dry-run", "--json").stdout)
    assert plan["needed"] == sum(len(data) for data in official_layout().values())
    done = json.loads(pigeon("download", "lavit-7b-v2", *source, "--accept-license", "--json").stdout)
    (part,) = done["parts"]
    assert (done["state"], part["path"], part["commit"]) == ("complete", str(folder), COMMIT)
    listed = {entry["model"]: entry["state"] for entry in json.loads(pigeon("download", "list", "--json").stdout)}
    assert listed == {
        "mini": "bundled", "sticker": "incomplete", "poster": "incomplete", "lavit-7b-v2": "complete",
        "pigeon-sticker": "absent", "pigeon-poster": "absent", "clip-vit-h-14": "absent",
        "dinov2-large": "absent",
    }  # fmt: skip


def test_mini_is_in_the_package(pigeon: Pigeon) -> None:
    for arguments in (("mini",), ("path", "mini")):
        result = pigeon("download", *arguments)
        assert result.exit_code == 0
        assert (Path(result.stdout.strip()) / "config.json").is_file()
    assert "nothing to download" in pigeon("download", "mini").stderr
    for command in ("verify", "remove"):
        refused = pigeon("download", command, "mini")
        assert (refused.exit_code, refused.stdout) == (2, "") and "mini is in the package" in refused.stderr


def test_path_is_silent_about_what_is_not_complete(pigeon: Pigeon, source, folder: Path) -> None:
    absent = pigeon("download", "path", "lavit-7b-v2")
    assert (absent.exit_code, absent.stdout) == (3, "") and "pigeon download lavit-7b-v2" in absent.stderr
    pigeon("download", "lavit-7b-v2", *source, "--accept-license")
    assert pigeon("download", "path", "lavit-7b-v2").stdout == f"{folder}\n"
    (folder / KILLED).unlink()
    assert pigeon("download", "path", "lavit-7b-v2").exit_code == 3


def test_verify_names_the_damaged_file_and_download_mends_it(pigeon: Pigeon, source, hub: Hub, folder: Path) -> None:
    pigeon("download", "lavit-7b-v2", *source, "--accept-license")
    good = pigeon("download", "verify", "lavit-7b-v2")
    assert good.exit_code == 0 and good.stdout.splitlines().count(f"ok\t{folder / KILLED}") == 1
    (folder / KILLED).write_bytes(bytes(len(official_layout()[KILLED])))
    bad = pigeon("download", "verify", "lavit-7b-v2", "--json")
    assert bad.exit_code == 3 and str(folder / KILLED) in bad.stderr
    assert [file["path"] for file in json.loads(bad.stdout)["files"] if not file["ok"]] == [str(folder / KILLED)]
    hub.asked.clear()
    mended = pigeon("download", "lavit-7b-v2", "--endpoint", hub.endpoint)
    assert mended.exit_code == 0 and f"going on with the source hub:{REPOSITORY}@main" in mended.stderr
    assert len([asked for asked in hub.asked if asked.server == "cdn"]) == 1
    assert (folder / KILLED).read_bytes() == official_layout()[KILLED]


def test_remove_says_what_it_freed(pigeon: Pigeon, source, folder: Path) -> None:
    pigeon("download", "lavit-7b-v2", *source, "--accept-license")
    result = pigeon("download", "remove", "lavit-7b-v2")
    assert (result.exit_code, result.stdout) == (0, f"{folder}\n") and "kB freed" in result.stderr
    assert not folder.exists()
    again = pigeon("download", "remove", "lavit-7b-v2")
    assert (again.exit_code, again.stdout) == (0, "")


def test_another_source_than_the_cached_one_is_not_mixed_in(pigeon: Pigeon, source, tmp_path: Path) -> None:
    pigeon("download", "lavit-7b-v2", *source, "--accept-license")
    result = pigeon("download", "lavit-7b-v2", "--source", str(tmp_path))
    assert result.exit_code == 2 and "pigeon download remove lavit-7b-v2" in result.stderr
    assert pigeon("download", "lavit-7b-v2", "--offline").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("path", "nothing"),
        ("sticker", "--source", "x"),
        ("lavit-7b-v2", "--source", "hub:"),
        ("lavit-7b-v2", "x"),
    ],
)
def test_wrong_words_are_wrong_usage(pigeon: Pigeon, arguments: tuple[str, ...]) -> None:
    result = pigeon("download", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_repository_that_is_not_there(pigeon: Pigeon, hub: Hub) -> None:
    result = pigeon("download", "lavit-7b-v2", "--source", "hub:no/body", "--endpoint", hub.endpoint)
    assert result.exit_code == 3 and "no/body" in result.stderr and "hint: " in result.stderr


@pytest.mark.parametrize(
    "arguments", [("-h",), ("--help",), ("get", "--help"), ("lavit-7b-v2", "--help"), ("path", "-h")]
)
def test_help_is_everywhere(pigeon: Pigeon, arguments: tuple[str, ...]) -> None:
    result = pigeon("download", *arguments)
    assert result.exit_code == 0 and "MODEL" in result.stdout


def test_the_bar_is_for_terminals_and_shows_no_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with transfer_display() as listener:
        listener.progress("we\x07ights.bin", 10**6, 2 * 10**6)
        listener.progress("we\x07ights.bin", 2 * 10**6, 2 * 10**6)
    shown = terminal.getvalue()
    assert "we\\x07ights.bin" in shown and "MB" in shown and "\x07" not in shown


def test_completion_knows_models_and_commands(pigeon: Pigeon) -> None:
    from pigeon_cli.cli.download import complete_name

    assert complete_name("pi") == ["pigeon-sticker", "pigeon-poster"]


def test_no_torch_is_loaded_where_nothing_is_converted(tmp_path: Path) -> None:
    script = "import sys; from pigeon_cli.cli.main import app\ntry: app()\nfinally: assert 'torch' not in sys.modules"
    for arguments in (["list"], ["lavit-7b-v2", "--offline"]):
        done = subprocess.run(
            [sys.executable, "-c", script, "download", *arguments], capture_output=True, text=True, check=False
        )
        assert "AssertionError" not in done.stderr and done.returncode in (0, 3)
