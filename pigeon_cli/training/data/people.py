"""People's own data in any of its forms, told by what is there."""

from __future__ import annotations

from pathlib import Path

from pigeon_cli.core.errors import InputError
from pigeon_cli.training.data.dataset import INDEX_FILE
from pigeon_cli.training.data.interactions import People, read_interactions
from pigeon_cli.training.data.published_layouts import PATHS_FILE, read_published
from pigeon_cli.training.data.users import read_users


def is_icon_dataset(data: Path) -> bool:
    """Whether ``data`` is what ``pigeon train data`` made."""
    return (data / INDEX_FILE).is_file()


def read_people(data: Path, split: str = "windows") -> People:
    """A JSONL file, a folder in the published form, or a folder of users; ``split`` is one of ``SPLIT_KINDS``."""
    if data.is_file():
        return read_interactions(data, split)
    if (data / PATHS_FILE).is_file():
        return read_published(data, split)
    if data.is_dir():
        return read_users(data, split)
    raise InputError(f"there is no data {data}", "give a folder with one folder per user, or a JSONL of interactions")
