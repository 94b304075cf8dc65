"""The published form of SER-30K and MovieLens: windows of image numbers in ``.npy`` files.

What is known of it (parity NOTES, sections 6 and 8): ``train.npy``, ``valid.npy`` and ``test.npy`` with windows of six,
``all_image_paths.npy`` with the images' paths, and per image number a title, an emotion and a caption. The original
files were not seen; the last three are called ``titles.npy``, ``emotions.npy`` and ``semantics.npy`` here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from pigeon_cli.core.errors import InputError
from pigeon_cli.history.words import one_line
from pigeon_cli.training.data.interactions import WINDOW, Interaction, People, Window, rule_split
from pigeon_cli.training.data.safe_arrays import read_array

PATHS_FILE: Final = "all_image_paths.npy"
SPLITS: Final = ("train", "valid", "test")


def read_published(folder: Path, kind: str) -> People:
    """The windows of ``folder`` with the published split, or with users kept apart (``kind`` = ``users``).

    Raises :class:`InputError` for anything that is not of this form, images outside ``folder`` included.
    """
    paths = _paths(folder)
    titles, emotions, captions = (_texts(folder / f"{name}.npy") for name in ("titles", "emotions", "semantics"))
    windows: list[Window] = []
    for split in SPLITS:
        file = folder / f"{split}.npy"
        if not file.is_file():
            continue
        for user, number, row in _rows(read_array(file), file):
            if not all(0 <= image < len(paths) for image in row):
                raise InputError(f"{file} names an image that {PATHS_FILE} does not have", "use files of one data set")
            images = tuple(
                Interaction(user, paths[image], _told(captions, emotions, image), titles.get(image, ""))
                for image in row
            )
            chosen = split if kind == "windows" else rule_split(user, number, kind)
            windows.append(Window(user, number, images, chosen))
    if not windows:
        raise InputError(f"there are no windows in {folder}", f"it needs train.npy beside {PATHS_FILE}")
    return People(tuple(windows))


def _paths(folder: Path) -> list[Path]:
    file = folder / PATHS_FILE
    names = read_array(file)
    if isinstance(names, np.ndarray):
        names = names.tolist()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file} is no list of paths", "it needs one text per image")
    root = folder.resolve()
    paths = [folder / name for name in names]
    for path in paths:
        if not path.resolve().is_relative_to(root):
            raise InputError(f"{file} names an image outside its folder: {path}", "put the images into the folder")
    return paths


def _texts(file: Path) -> dict[int, str]:
    """Image number to text, from a dict or a list; empty where there is no such file."""
    if not file.is_file():
        return {}
    values = read_array(file)
    if isinstance(values, np.ndarray):
        values = values.tolist()
    try:
        entries = values.items() if isinstance(values, Mapping) else enumerate(values)
        return {int(number): one_line(str(text)) for number, text in entries}
    except (TypeError, ValueError) as error:
        raise InputError(f"{file} holds no texts by image number: {error}", "give a dict or a list") from error


def _told(captions: Mapping[int, str], emotions: Mapping[int, str], image: int) -> str:
    return " ".join(text for text in (emotions.get(image, ""), captions.get(image, "")) if text)


def _rows(content: Any, file: Path) -> list[tuple[str, int, tuple[int, ...]]]:
    """(user, number of the window, six image numbers); users without a name are called by their row."""
    if isinstance(content, Mapping):
        named = [(str(user), _windows(value, file)) for user, value in content.items()]
    else:
        named = [(f"{file.stem}-{place}", [row]) for place, row in enumerate(_windows(content, file))]
    return [(user, number, row) for user, rows in named for number, row in enumerate(rows)]


def _windows(value: Any, file: Path) -> list[tuple[int, ...]]:
    """One window of six numbers, or several."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    rows: Sequence[Any] = value if isinstance(value, list) else []
    if rows and all(isinstance(entry, int) for entry in rows):
        rows = [rows]
    rows = [row.tolist() if isinstance(row, np.ndarray) else row for row in rows]
    good = all(
        isinstance(row, list) and len(row) == WINDOW and all(isinstance(image, int) for image in row) for row in rows
    )
    if not rows or not good:
        raise InputError(f"{file} holds no windows of {WINDOW} image numbers", f"give lists of {WINDOW} numbers")
    return [tuple(row) for row in rows]
