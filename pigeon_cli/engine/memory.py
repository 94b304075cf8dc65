"""How much memory a model takes and a run has taken."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import torch

from pigeon_cli.engine.plan import Device
from pigeon_cli.weights.store import PARTS
from pigeon_cli.weights.stored_model import StoredModel

KEEP_BELOW = 2**30
"""Weights files of fewer bytes in all stay in memory together; of larger models each part goes when it has worked."""
WORKSPACE: Final = 300 * 10**6
"""What the libraries take of main memory once they compute: code that was not run yet, and rooms of their own."""
USABLE: Final = 0.9
"""Of the main memory that is free; the rest is for whatever else grows meanwhile."""

_STATUS = Path("/proc/self/status")
_SYSTEM = Path("/proc/meminfo")
_OWN_GROUPS = Path("/proc/self/cgroup")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def stays_whole(model: StoredModel) -> bool:
    """Whether all parts of the model are kept in memory side by side."""
    if model.mapped:
        return False
    sizes = (file.path.stat().st_size for name in PARTS for file in model.tensor_files(name))
    return sum(sizes) < KEEP_BELOW


def measure(device: torch.device) -> Device:
    """What can still be had on a device, and what this process holds of it already."""
    if device.type == "cuda":
        return Device("cuda", torch.cuda.mem_get_info(device)[0], torch.cuda.memory_reserved(device))
    held = _status_bytes("VmRSS") or 0
    return Device(device.type, max(0, int(USABLE * _free_memory(held)) - WORKSPACE), held + WORKSPACE)


def peak_memory() -> int | None:
    """Most bytes this process has held in main memory, plus those of torch on CUDA; ``None`` where nobody counts."""
    main = _peak_resident()
    if main is not None and torch.cuda.is_initialized():
        main += torch.cuda.max_memory_allocated()
    return main


def _peak_resident() -> int | None:
    if (counted := _status_bytes("VmHWM")) is not None:
        return counted
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _free_memory(held: int) -> int:
    """Bytes of main memory that are free or could be; all of it but ``held`` where nobody says more."""
    if (free := _counted(_SYSTEM, "MemAvailable")) is not None:
        return min(free, _free_in_groups())
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - held
    return sys.maxsize


def _free_in_groups() -> int:
    """What the limits of this process's control groups leave, its own one's and those of all above it."""
    if not _OWN_GROUPS.is_file():
        return sys.maxsize
    least = sys.maxsize
    for line in _OWN_GROUPS.read_text(encoding="utf-8", errors="replace").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, names = _CONTROL_GROUPS, ("memory.max", "memory.current", "inactive_file")
        elif controllers == "memory":  # version 1
            root = _CONTROL_GROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside a container the path may be that of the host: what is not there limits nothing, and the root is.
        group = root / path.lstrip("/")
        inside = [each for each in (group, *group.parents) if each.is_relative_to(root)]
        least = min(least, *(_free_in_group(each, *names) for each in inside))
    return least


def _free_in_group(group: Path, limit: str, used: str, inactive: str) -> int:
    """What one group's limit leaves; file pages that nobody works with can be had back."""
    try:
        statistics = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
        most, taken = (int((group / name).read_text("ascii")) for name in (limit, used))
        return most - taken + int(statistics[inactive])
    except (OSError, ValueError, KeyError):  # no such group, or no limit ("max")
        return sys.maxsize


def _status_bytes(name: str) -> int | None:
    return _counted(_STATUS, name)


def _counted(path: Path, name: str) -> int | None:
    """The entry ``name`` of a file of ``/proc``, in bytes."""
    if path.is_file():
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None
