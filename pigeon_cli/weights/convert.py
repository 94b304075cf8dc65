"""Published ``.bin`` pickles into safetensors, one file at a time: names, shapes, types and values stay.

A pickle can run anything that it names; only torch's restricted reader (``weights_only=True``) touches it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.checkpoint import save_tensors
from pigeon_cli.weights.disk import sync_folder, temporary_beside, write_whole, writing
from pigeon_cli.weights.published import read_tensors
from pigeon_cli.weights.shards import converted_name


def convert_pickle(source: Path, target: Path) -> None:
    """Write the tensors of the pickle ``source`` as the safetensors file ``target``, through a file beside it.

    Both are mapped, so little memory is held, whatever their size. Raises :class:`WeightsError` for anything but a
    table of names and tensors, of which nothing is run, and :class:`OutputError` for the disk.
    """
    tensors = read_tensors(source)
    temporary = temporary_beside(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_tensors(_apart(tensors), temporary)
            # It is readable by its owner alone; a cache may be shared.
            temporary.chmod(0o644)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)


def convert_index(source: Path, target: Path) -> None:
    """The table of which shard holds which tensor, with the names that the shards have after conversion."""
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
        table = {key: converted_name(name) for key, name in data["weight_map"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"cannot read the list of shards {source}: {error}", "use another --source") from error
    write_whole(target, json.dumps({**data, "weight_map": table}, indent=1).encode() + b"\n")


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that safetensors takes: dense rows of their own; a second name for the same memory gets a copy."""
    seen: set[int] = set()
    ready = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        plain = tensor.detach().contiguous()
        ready[name] = plain.clone() if place in seen and plain.numel() else plain
        seen.add(place)
    return ready
