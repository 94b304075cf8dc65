"""Finding a published model: its parts in the download cache, or in any folder of the published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.cache import PartFolder, cache_root
from pigeon_cli.weights.catalog import load_catalog
from pigeon_cli.weights.official import OfficialFolder
from pigeon_cli.weights.published_alignment import PACKED_WEIGHTS, Alignment, find_alignment
from pigeon_cli.weights.store import DOWNLOADED

CLIP_PART: Final = "clip-vit-h-14"
BESIDE: Final = ("alignment", *(f"pigeon-{name}" for name in DOWNLOADED))
"""Folders beside a model in which its alignment is looked for, the last ones as the download cache calls them."""


def find_downloaded(name: str) -> OfficialFolder:
    """The combination ``name`` of the catalog; raises :class:`WeightsError` unless its parts are complete.

    Without CLIP a model draws, too: it then ranks without looking at pixels.
    """
    folders = [PartFolder(cache_root(), part.name) for part in load_catalog().model(name).parts]
    for folder in folders:
        if folder.part != CLIP_PART and folder.manifest is None:
            what = "is not in the cache" if folder.state == "absent" else "is not complete"
            raise WeightsError(f"{folder.part} {what} ({folder.path})", f"type: pigeon download {name}")
    model, alignment = (folder.path for folder in folders if folder.part != CLIP_PART)
    return _whole(OfficialFolder(model, find_alignment(alignment), name, _clip()))


def find_official(path: Path) -> OfficialFolder:
    """The model in ``path`` with the alignment that lies in it or beside it, if one does.

    Raises :class:`WeightsError` for missing files, and for several alignments.
    """
    places = [path, *(path.absolute().with_name(name) for name in BESIDE)]
    place = next((place for place in places if _holds_alignment(place)), None)
    scenario = next(
        (name for name in DOWNLOADED if place is not None and place.name == f"pigeon-{name}"), DOWNLOADED[0]
    )
    return _whole(OfficialFolder(path, _alignment(place), scenario, _clip()))


def _alignment(place: Path | None) -> Alignment | None:
    return None if place is None else find_alignment(place)


def _holds_alignment(place: Path) -> bool:
    return place.is_dir() and ((place / PACKED_WEIGHTS).is_file() or any(place.rglob("mask_generator")))


def _clip() -> Path | None:
    folder = PartFolder(cache_root(), CLIP_PART)
    return folder.path if folder.manifest is not None else None


def _whole(folder: OfficialFolder) -> OfficialFolder:
    if missing := folder.missing():
        more = f" and {len(missing) - 3} more files" if len(missing) > 3 else ""
        raise WeightsError(
            f"the model folder {folder.path} lacks {', '.join(missing[:3])}{more}",
            "download the model again, or name another folder",
        )
    return folder
