"""Makes the published form of SER-30K and MovieLens in small: windows of image numbers in pickled ``.npy`` files.

Run it to look at one: ``python -m tests.published_data FOLDER``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = 16


def write_images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """``count`` PNG files 1.png, 2.png, ... of coloured blocks, each with a content of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(1, count + 1):
        blocks = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8).repeat(10, 0).repeat(10, 1)
        paths.append(folder / f"{number}.png")
        Image.fromarray(blocks).save(paths[-1])
    return paths


def save_object(path: Path, value: object) -> None:
    """Pickled, as ``numpy.save`` does with a dict or a ragged list."""
    box = np.empty((), dtype=object)
    box[()] = value
    np.save(path, box, allow_pickle=True)


def write_published(folder: Path) -> None:
    """Two users with two windows each in train, one in valid and test; titles, emotions and captions."""
    images = write_images(folder / "images", IMAGES)
    np.save(folder / "all_image_paths.npy", np.array([str(path.relative_to(folder)) for path in images]))
    save_object(folder / "train.npy", {7: [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]], 9: np.arange(12).reshape(2, 6)})
    np.save(folder / "valid.npy", np.array([[10, 11, 12, 13, 14, 15]]))
    save_object(folder / "test.npy", [[9, 10, 11, 12, 13, 14]])
    save_object(folder / "titles.npy", {number: f"Film {number} (1995)" for number in range(IMAGES)})
    save_object(folder / "emotions.npy", {5: "happiness", 6: "sadness"})
    save_object(folder / "semantics.npy", [f"a picture of thing {number}" for number in range(IMAGES)])


if __name__ == "__main__":
    write_published(Path(sys.argv[1]))
