"""How much memory a model takes and a run has taken."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pigeon_cli.weights.store import PARTS, ModelFolder

KEEP_BELOW = 2**30
"""Weights files of fewer bytes in all stay in memory together; of larger models each part goes when it has worked."""

_STATUS = Path("/proc/self/status")


def stays_whole(folder: ModelFolder) -> bool:
    """Whether all parts of the model are kept in memory side by side."""
    return sum(folder.part(name).stat().st_size for name in PARTS) < KEEP_BELOW


def peak_memory() -> int | None:
    """Most bytes this process has held in main memory, plus those of torch on CUDA; ``None`` where nobody counts."""
    main = _peak_resident()
    if main is not None and torch.cuda.is_initialized():
        main += torch.cuda.max_memory_allocated()
    return main


def _peak_resident() -> int | None:
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
