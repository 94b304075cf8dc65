"""What ``--data`` may point at, told by what is in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.dataset import INDEX_FILE, load_dataset
from pigeon_cli.training.data.people import is_icon_dataset, read_people
from pigeon_cli.training.people_codes import WindowRequests
from pigeon_cli.training.taste_requests import IconRequests, RequestSource
from pigeon_cli.weights.checkpoint import sha256_of


def open_requests(
    data: Path, device: DeviceChoice, seed: int, spec: ModelSpec, split: str, say: Callable[[str], None]
) -> RequestSource:
    """The train requests of ``data``; raises :class:`InputError` for what is no data.

    ``split`` is about people's own data; icons have a split of their own.
    """
    if not is_icon_dataset(data):
        people = read_people(data, split)
        for warning in people.warnings:
            say(warning)
        return WindowRequests(people, seed)
    batches = IconBatches(load_dataset(data), device.device)
    return IconRequests(batches, seed, sha256_of(data / INDEX_FILE))
