"""What a download tells while it works; the command decides how it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _silent(*_: object) -> None:
    return


@dataclass(frozen=True)
class Listener:
    """Three ears; each is silent unless given."""

    note: Callable[[str], None] = _silent
    warn: Callable[[str], None] = _silent
    progress: Callable[[str, int, int | None], None] = _silent
    """Name of what is worked on, bytes done, bytes in all if known."""
