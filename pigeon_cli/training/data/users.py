"""One folder per user, images in natural name order, each with an optional ``NAME.txt``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.records import HistoryStatus
from pigeon_cli.history.intake import gather
from pigeon_cli.history.words import sidecar
from pigeon_cli.training.data.interactions import Interaction, People, cut_windows

ALL: Final = 1_000_000_000


def read_users(folder: Path, kind: str) -> People:
    """The users in ``folder``; raises :class:`InputError`. Unusable images are left out and named in the warnings."""
    by_user: dict[str, list[Interaction]] = {}
    warnings: list[str] = []
    for user in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        try:
            images = gather([user], size=ALL)
        except InputError as error:
            warnings.append(f"left out: {error.message}")
            continue
        used = [image.path for image in images if image.status is HistoryStatus.USED]
        warnings += [f"left out: {image.path} ({image.reason})" for image in images if image.path not in used]
        by_user[user.name] = [Interaction(user.name, path, *sidecar(path)) for path in used]
    if not by_user:
        hint = "make one folder per user with the images that they liked, numbered in their order"
        raise InputError(f"there are no users with images in {folder}", hint)
    people = cut_windows(by_user, kind)
    return People(people.windows, (*warnings, *people.warnings))
