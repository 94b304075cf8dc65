"""The table of errors: exit status, one line, one hint, no traceback, and nothing left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import pigeon_cli
from pigeon_cli.cli.talk import emit
from pigeon_cli.core.errors import InputError, MemoryBudgetError, OutputError, UsageError, WeightsError
from pigeon_cli.report import files


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's, which is all the table looks at."""


CASES = [
    (UsageError("no", "yes"), 2),
    (WeightsError("unet.safetensors is damaged", "install again"), 3),
    (MemoryBudgetError("no", "yes"), 4),
    (MemoryError(), 4),
    (OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore"), 4),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 4),
    (InputError("no", "yes"), 5),
    (OSError(errno.ENOSPC, "No space left on device", "/x"), 6),
    (OSError(errno.EROFS, "Read-only file system", "/x"), 6),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "/x"), 6),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), 5),
    (PermissionError(errno.EPERM, "Operation not permitted", "/x"), 5),
    (ModuleNotFoundError("No module named 'skimage.color'", name="skimage.color"), 2),
    (ModuleNotFoundError("No module named 'something'", name="something"), 1),
    (KeyboardInterrupt(), 130),
    (ValueError("odd\nsecond line"), 1),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1),
]


@pytest.mark.parametrize(("error", "code"), CASES, ids=lambda value: type(value).__name__)
def test_status_and_one_clear_line(pigeon, pipeline, liked: Path, wish: Path, error, code: int) -> None:
    pipeline.fails_with = error
    result = pigeon("generate", "--history", liked, "--ref", wish, "--quiet")
    assert (result.exit_code, result.stdout) == (code, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("error: ") and len(lines) <= 2 and "Traceback" not in result.stderr
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert not Path("pigeon-out").exists()


def test_unexpected_errors_point_to_debug(pigeon, pipeline, liked: Path, wish: Path) -> None:
    pipeline.fails_with = ZeroDivisionError("a [/x] \x1b[31m b")
    result = pigeon("generate", "--history", liked, "--ref", wish, "--quiet")
    assert result.stderr.splitlines() == [
        "error: unexpected ZeroDivisionError: a [/x] \\x1b[31m b",
        "hint: run again with --debug for the traceback",
    ]
    result = pigeon("generate", "--history", liked, "--ref", wish, "--quiet", "--debug")
    assert result.exit_code == 1 and "Traceback" in result.stderr and "fails_with" in result.stderr


@pytest.mark.parametrize(
    ("number", "lines"),
    [
        (errno.EACCES, ["error: cannot use /x: Permission denied", "hint: check its permissions"]),
        (
            errno.ENOSPC,
            [
                "error: cannot write /x: No space left on device",
                "hint: free some space or choose another folder with --out",
            ],
        ),
    ],
)
def test_what_may_not_be_used_is_no_full_disk(
    pigeon, pipeline, liked: Path, wish: Path, number: int, lines: list[str]
) -> None:
    pipeline.fails_with = OSError(number, os.strerror(number), "/x")
    result = pigeon("generate", "--history", liked, "--ref", wish, "--quiet")
    assert result.stderr.splitlines() == lines


def test_a_model_that_may_not_be_read(
    pigeon, pipeline, liked: Path, wish: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", name)

    monkeypatch.setattr("pigeon_cli.weights.store.find_model", refuse)
    result = pigeon("generate", "--history", liked, "--ref", wish, "--model", "/private/model")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "error: cannot use /private/model: Permission denied\nhint: check its permissions\n"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_nothing_is_left_when_writing_fails(
    pigeon, pipeline, liked: Path, wish: Path, monkeypatch: pytest.MonkeyPatch, call: int, interruption: BaseException
) -> None:
    calls = 0
    write = files._write

    def failing(path: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        write(path, data[:3])
        if calls == call:
            raise interruption

    monkeypatch.setattr(files, "_write", failing)
    result = pigeon("generate", "--history", liked, "--ref", wish, "--out", "out", "-n", "2")
    assert result.exit_code == (130 if isinstance(interruption, KeyboardInterrupt) else 6)
    assert result.stdout == "" and os.listdir("out") == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("name", ["mkdir", "replace"])
def test_a_folder_that_turned_read_only(
    pigeon, pipeline, liked: Path, wish: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    # Root may write anywhere, so the system's answer is planted.
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), os.fspath(path))

    monkeypatch.setattr(os, name, refuse)
    result = pigeon("generate", "--history", liked, "--ref", wish, "--out", "out", "--quiet")
    assert (result.exit_code, result.stdout) == (6, "")
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: cannot write out") and error.endswith(os.strerror(number))
    assert hint == "hint: free some space or choose another folder with --out"
    assert name == "mkdir" or os.listdir("out") == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_no_old_report_beside_new_images(
    pigeon, pipeline, liked: Path, wish: Path, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    arguments = ("generate", "--history", liked, "--ref", wish, "--out", "out", "-n", "2")
    assert pigeon(*arguments).exit_code == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    replace = os.replace

    def once(source: Path, target: Path) -> None:
        replace(source, target)
        raise interruption

    monkeypatch.setattr(os, "replace", once)
    assert pigeon(*arguments, "--force", "--seed", "5").exit_code in (6, 130)
    after = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert sorted(after) == ["red fox-01.png", "red fox-02.png"]
    assert after["red fox-01.png"] != before["red fox-01.png"]
    assert after["red fox-02.png"] == before["red fox-02.png"]


RUNNER = """
import sys, time
sys.path.insert(0, {folder!r})
from conftest import FakePipeline, find_fake_model
from types import ModuleType
from pigeon_cli.cli.main import main
from pigeon_cli.weights import store
store.find_model = find_fake_model
if limit := {limit!r}:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
fake = FakePipeline()
module = ModuleType("pigeon_cli.pipeline.run")
def generate(request, progress):
    if request.seed == 1:
        print("ready", file=sys.stderr, flush=True)
        time.sleep(30)
    return fake.generate(request, progress)
module.generate = generate
sys.modules[module.__name__] = module
main()
"""


def start(*arguments: str, cwd: Path, limit: int = 0, **streams) -> subprocess.Popen[bytes]:
    """A process on the fake pipeline; the system lets it write no file of more than ``limit`` bytes, if given."""
    script = RUNNER.format(folder=str(Path(__file__).parent), limit=limit)
    command = [sys.executable, "-c", script, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(pigeon_cli.__file__).parents[1])}
    return subprocess.Popen(command, cwd=cwd, env=environment, **{"stderr": subprocess.PIPE, **streams})


def test_ctrl_c_in_a_real_process(liked: Path, wish: Path, tmp_path: Path) -> None:
    arguments = ("generate", "--history", "liked", "--ref", wish.name, "--seed", "1")
    process = start(*arguments, cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline() == b"ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, talk = process.communicate(timeout=20)
    assert (process.returncode, output, talk) == (130, b"", b"error: interrupted\n")
    assert not (tmp_path / "pigeon-out").exists()


def test_a_disk_that_takes_no_more(liked: Path, wish: Path, tmp_path: Path) -> None:
    arguments = ("generate", "--history", "liked", "--ref", wish.name, "--quiet", "--out", "out")
    process = start(*arguments, cwd=tmp_path, limit=100, stdout=subprocess.PIPE)
    output, talk = process.communicate(timeout=20)
    assert (process.returncode, output) == (6, b"")
    assert talk.startswith(b"error: cannot write out/red fox-01.png: File too large\n")
    assert os.listdir(tmp_path / "out") == []


def test_a_full_standard_error_stops_nothing(liked: Path, wish: Path, tmp_path: Path) -> None:
    (liked / "99.png").write_bytes(b"")
    with open("/dev/full", "wb") as full:
        arguments = ("generate", "--history", "liked", "--ref", wish.name, "-n", "1")
        process = start(*arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=full)
    assert process.communicate(timeout=20)[0] == b"pigeon-out/red fox-01.png\n"
    assert (tmp_path / "pigeon-out" / "report.json").exists()


def test_closed_streams(liked: Path, wish: Path, tmp_path: Path) -> None:
    arguments = ("generate", "--history", "-", "--ref", wish.name)
    process = start(*arguments, cwd=tmp_path, preexec_fn=lambda: os.close(0))
    assert b"error: there is no standard input" in process.communicate(timeout=20)[1]
    assert process.returncode == 5
    arguments = ("generate", "--history", "liked", "--ref", wish.name)
    process = start(*arguments, cwd=tmp_path, preexec_fn=lambda: os.closerange(1, 3))
    process.communicate(timeout=20)
    assert process.returncode == 0 and (tmp_path / "pigeon-out" / "report.json").exists()


def test_a_full_standard_output_is_told(liked: Path, wish: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        process = start("generate", "--history", "liked", "--ref", wish.name, "--quiet", cwd=tmp_path, stdout=full)
    _, talk = process.communicate(timeout=20)
    assert process.returncode == 6
    assert talk.splitlines() == [
        b"error: cannot write to standard output: No space left on device",
        b"hint: the images and the report themselves are written",
    ]


def test_only_what_is_written_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stdout", SimpleNamespace(flush=refuse))
    for written, hint in (
        ("", "send the output where there is room"),
        ("the pages", "the pages themselves are written"),
    ):
        with pytest.raises(OutputError) as caught:
            emit(b"data", written)
        assert caught.value.hint == hint


def test_a_reader_that_leaves_is_no_error(liked: Path, wish: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ("generate", "--history", "liked", "--ref", wish.name, "--json", "--quiet")
    process = start(*arguments, cwd=tmp_path, stdout=writing)
    os.close(writing)
    _, talk = process.communicate(timeout=20)
    assert (process.returncode, talk) == (0, b"")
    assert (tmp_path / "pigeon-out" / "report.json").exists()
