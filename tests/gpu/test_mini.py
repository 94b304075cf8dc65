"""The bundled model from files to files on a CUDA device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PIGEON = "from pigeon_cli.cli.main import main; main()"
NEEDED = ("diffusers", "filelock", "httpx2", "huggingface_hub", "platformdirs", "rich", "sentencepiece", "typer")
"""What the command imports besides torch and transformers."""
TIMEOUT = 300


def sample(device: str, out: Path) -> dict[str, Any]:
    """The report of ``pigeon generate --sample`` on ``device``, in a process of its own."""
    arguments = ("generate", "--sample", "--device", device, "--json", "--out", str(out))
    # What a machine without a registry carries of libraries stays on the path.
    carried = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), carried)))}
    command = [sys.executable, "-c", PIGEON, *arguments]
    done = subprocess.run(
        command, env=environment, cwd=out.parent, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.gpu
def test_the_sample_is_drawn(cuda: torch.device, tmp_path: Path, note: Callable[[str], None]) -> None:
    for name in NEEDED:
        pytest.importorskip(name)
    report = sample(cuda.type, tmp_path / "out")
    assert report["device"]["name"] == cuda.type
    assert len(report["outputs"]) == 4
    for output in report["outputs"]:
        with Image.open(tmp_path / "out" / output["file"]) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (128, 128))
            assert max(high - low for low, high in image.getextrema()) > 0, "one colour only"
    for stage in report["stages"]:
        note(f"{'mini':<15} {'float32':<9} {stage['name']:<16} {stage['seconds']:8.3f} s")
    note(f"{'mini':<15} {'float32':<9} {'peak, with host':<16} {report['peak_memory_bytes'] / 1e9:18.2f} GB")
