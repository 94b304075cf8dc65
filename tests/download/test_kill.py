"""``kill -9`` at ten bytes drawn at random: each next run goes on exactly there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pigeon_cli
from tests.download.hub_server import Fault, Hub, sha256

KILLED = "visual_tokenizer/eva_vitg_psz14.safetensors"
COMMAND = "from pigeon_cli.cli.main import main; main()"
SIZE = 200_000


def official_layout() -> dict[str, bytes]:
    """The names of LaVIT-7B-v2 with weights that need no conversion."""
    stems = (
        "language_model/model", "visual_tokenizer/tokenizer_encoder", "visual_tokenizer/highres_tokenizer_decoder",
        "highres_pixel_decoding/unet/diffusion_pytorch_model", "highres_pixel_decoding/vae/diffusion_pytorch_model",
    )  # fmt: skip
    configs = (
        "language_model/config", "highres_pixel_decoding/unet/config", "highres_pixel_decoding/vae/config",
        "highres_pixel_decoding/scheduler/scheduler_config",
    )  # fmt: skip
    return {
        KILLED: random.Random(1).randbytes(SIZE),
        "language_model/tokenizer.model": b"pieces",
        **{f"{stem}.safetensors": stem.encode() for stem in stems},
        **{f"{name}.json": b"{}" for name in configs},
    }


def start(hub: Hub, tmp_path: Path, **streams: int) -> subprocess.Popen[str]:
    """The command in a process of its own, which finds the hub and its token as huggingface_hub does."""
    hub.token = "hf_secret"
    environment = {
        **os.environ, "PYTHONPATH": str(Path(pigeon_cli.__file__).parents[1]), "HF_HOME": str(tmp_path / "hf"),
        "PIGEON_CACHE": str(tmp_path / "cache"), "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token,
    }  # fmt: skip
    command = [sys.executable, "-c", COMMAND, "download", "lavit-7b-v2", "--source", "hub:maker/lavit"]
    consent = [] if streams else ["--accept-license"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen([*command, *consent], env=environment, text=True, **pipes)


def test_every_kill_is_resumed_at_its_byte(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["maker/lavit"] = official_layout()
    places = sorted(random.Random(4).sample(range(1, SIZE), 10))
    for place in places:
        hub.faults[KILLED] = [Fault(cut=place, hold=True)]
        hub.held.clear()
        process = start(hub, tmp_path)
        assert hub.held.wait(30), process.communicate(timeout=5)
        wait_for_bytes(tmp_path / "cache", place)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert not (tmp_path / "cache" / "lavit-7b-v2" / "manifest.json").exists()
    output, talk = start(hub, tmp_path).communicate(timeout=60)
    folder = tmp_path / "cache" / "lavit-7b-v2"
    assert output == f"{folder}\n", talk
    assert {path: (folder / path).read_bytes() for path in official_layout()} == official_layout()
    assert [
        asked.start
        for asked in hub.asked
        if asked.server == "cdn" and asked.path.endswith(sha256(official_layout()[KILLED]))
    ] == [0, *places]


def wait_for_bytes(cache: Path, count: int) -> None:
    """Until the process has written what the server sent."""
    for _ in range(3000):
        if sum(part.stat().st_size for part in cache.rglob("eva*.part")) == count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{count} bytes never came")
