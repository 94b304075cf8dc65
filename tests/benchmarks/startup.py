"""How long a call takes: ``python tests/benchmarks/startup.py [--sample]``.

Prints the median seconds of ``pigeon --help``, of a bare Typer app's and their ratio, whole processes by turns; with
``--sample`` also those of warm ``pigeon generate --sample`` runs, imports and weights included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
PIGEON = "from pigeon_cli.cli.main import main; main()"
BARE = """
import typer
app = typer.Typer()
@app.command()
def hello(name: str) -> None:
    "Greet somebody."
    print(name)
app()
"""
HELP_RATIO, SAMPLE_SECONDS = 1.5, 10
"""What issue 3 asks for: at most so many times a bare app, at most so many seconds on two cores."""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds(code: str, *arguments: str) -> float:
    """Wall-clock seconds of a Python process that runs ``code``; raises when it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, check=False)
    spent = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.decode(errors='replace')}")
    return spent


def compare_help(runs: int) -> list[str]:
    """Both programs by turns, so that a busy machine slows both; the first turn warms the disk cache."""
    turns = [(seconds(PIGEON, "--help"), seconds(BARE, "--help")) for _ in range(runs + 1)][1:]
    ours, bare = (median(column) for column in zip(*turns, strict=True))
    return [
        f"pigeon --help       {ours:.3f} s, median of {runs}",
        f"bare Typer --help   {bare:.3f} s, median of {runs}",
        f"ratio               {ours / bare:.2f} (wanted: at most {HELP_RATIO})",
    ]


def time_sample(runs: int, options: Sequence[str]) -> list[str]:
    """Whole runs of the sample, after one that warms the disk cache."""
    with tempfile.TemporaryDirectory() as out:
        command = ("generate", "--sample", "--quiet", "--force", "--out", out, *options)
        spent = [seconds(PIGEON, *command) for _ in range(runs + 1)][1:]
    each = ", ".join(f"{value:.2f}" for value in spent)
    return [
        f"generate --sample   {median(spent):.2f} s, median of {each} (wanted on 2 cores: at most {SAMPLE_SECONDS})"
    ]


def main(given: Sequence[str] | None = None) -> None:
    """Command line; what it does not know goes to ``pigeon generate --sample``."""
    parser = argparse.ArgumentParser(description="Start-up and sample times. Other options go to generate --sample.")
    parser.add_argument("--runs", type=int, default=15, help="of each --help")
    parser.add_argument("--sample", action="store_true", help="time generate --sample as well")
    parser.add_argument("--sample-runs", type=int, default=3)
    arguments, options = parser.parse_known_args(given)
    print(f"cores               {cores()}, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')}")
    print("\n".join(compare_help(arguments.runs)))
    if arguments.sample:
        print("\n".join(time_sample(arguments.sample_runs, options)))


if __name__ == "__main__":
    main()
