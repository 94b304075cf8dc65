"""What every call pays: ``--help`` and ``--version`` must stay light."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pigeon_cli import __version__
from tests.benchmarks import startup

HEAVY = ("torch", "transformers", "diffusers", "peft", "accelerate")
SCRIPT = """
import json, sys
from pigeon_cli.cli.main import main
try:
    main()
except SystemExit as stop:
    print(json.dumps([stop.code, sorted(set(sys.modules) & set({heavy!r}))]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["generate", "--help"],
        ["generate", "--sample", "-x"],
        ["evaluate", "--help"],
        ["study", "make", "--help"],
    ],
)
def test_no_heavy_library_is_loaded(arguments: list[str]) -> None:
    command = [sys.executable, "-c", SCRIPT.format(heavy=HEAVY), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, loaded = json.loads(done.stderr.splitlines()[-1])
    assert loaded == []
    assert code == (2 if "-x" in arguments else 0)


def test_the_benchmark_prints_both_times_and_their_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    startup.main(["--runs", "1"])
    cores, ours, bare, ratio = (line.split() for line in capsys.readouterr().out.splitlines())
    assert cores[0] == "cores" and float(ratio[1]) == pytest.approx(float(ours[2]) / float(bare[3]), rel=0.05)


def test_version_is_on_stdout(pigeon) -> None:
    result = pigeon("--version")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"pigeon {__version__}\n", "")
