"""What ``--data`` may point at, told by what is in it."""

from __future__ import annotations

from pathlib import Path

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.dataset import INDEX_FILE, load_dataset
from pigeon_cli.training.taste_requests import IconRequests, RequestSource
from pigeon_cli.weights.checkpoint import sha256_of


def open_requests(data: Path, device: DeviceChoice, seed: int, spec: ModelSpec) -> RequestSource:
    """The train requests of ``data``; raises :class:`InputError` for what is no data."""
    batches = IconBatches(load_dataset(data), device.device)
    return IconRequests(batches, seed, sha256_of(data / INDEX_FILE))
