"""From folders, files and lists to an ordered history; whatever an image file may be, it is used or named.

Every image is read once and whole, so that its hash and its pixels come from the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from PIL import Image, UnidentifiedImageError

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.records import HistoryImage, HistoryStatus

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
READABLE: Final = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
UNREADABLE: Final = frozenset({".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".ico"})
"""Image files of a folder that are named as skipped instead of being passed over."""
CHECK_PATH: Final = "check the path"
CHECK_PERMISSIONS: Final = "check its permissions"
OTHER_FILE: Final = "give a PNG, JPEG, WebP, GIF, BMP or TIFF image"
SMALLER: Final = "give a smaller one"
OTHER_LIKED: Final = "give liked images that differ from the reference"

Order = Literal["name", "time"]


@dataclass(frozen=True)
class IntakeLimits:
    """What one image may cost; beyond it the image is skipped and named."""

    file_bytes: int = 64 * 2**20
    pixels: int = 100_000_000


DEFAULT_LIMITS: Final = IntakeLimits()


@dataclass(frozen=True)
class LoadedImage:
    """Pixels of the first frame, and the SHA-256 of the file's bytes."""

    image: Image.Image
    sha256: str


class UnusableImage(Exception):
    """Why one file cannot be used, without its name, and what to do about it."""

    def __init__(self, reason: str, hint: str = OTHER_FILE) -> None:
        super().__init__(reason)
        self.hint = hint


def load_image(path: Path, limits: IntakeLimits = DEFAULT_LIMITS) -> LoadedImage:
    """First frame of ``path`` as stored (mode, EXIF and alpha untouched) with its hash; raises :class:`InputError`."""
    try:
        data = _read(path, limits)
        return LoadedImage(_decode(data, limits), hashlib.sha256(data).hexdigest())
    except UnusableImage as error:
        raise InputError(f"cannot use the image {path}: {error}", error.hint) from error


def open_image(path: Path, limits: IntakeLimits = DEFAULT_LIMITS) -> Image.Image:
    """The pixels of :func:`load_image` alone."""
    return load_image(path, limits).image


def gather(
    paths: Sequence[Path],
    size: int = 5,
    order: Order = "name",
    recursive: bool = False,
    reference_sha: str | None = None,
    limits: IntakeLimits = DEFAULT_LIMITS,
) -> list[HistoryImage]:
    """Every image file that ``paths`` name or hold, oldest first, the last ``size`` usable ones marked as used.

    Files are read from the newest back and no further than needed. Raises :class:`InputError` when a path is
    missing or nothing is usable.
    """
    candidates = sorted(_candidates(paths, recursive), key=_time_key if order == "time" else _name_key)
    gathered: list[HistoryImage] = []
    hints: list[str] = []
    used = 0
    for path in reversed(candidates):
        if used < size:
            image, hint = _inspect(path, reference_sha, limits)
            hints.append(hint)
        else:
            image = HistoryImage(path, HistoryStatus.OLDER, reason=f"older than the last {size} usable images")
        used += image.status is HistoryStatus.USED
        gathered.append(image)
    gathered.reverse()
    if not used:
        raise _nothing_usable(paths, gathered, hints, recursive)
    return gathered


def parse_list(data: bytes, null_separated: bool) -> list[Path]:
    """Paths of a list as ``find`` prints it, one a line or NUL-separated; empty entries are passed over.

    Raises :class:`InputError` for an empty list and for one with NULs that was not announced.
    """
    if not null_separated and b"\0" in data:
        raise InputError("the list on standard input is separated by NUL characters", "add -0")
    entries = data.split(b"\0") if null_separated else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    paths = [Path(os.fsdecode(entry)) for entry in entries if entry]
    if not paths:
        raise InputError("the list on standard input is empty", "pipe the paths of liked images into it")
    return paths


def _candidates(paths: Sequence[Path], recursive: bool) -> list[Path]:
    found: dict[str, Path] = {}
    for path in paths:
        for file in _scan(path, recursive) if _is_folder(path) else (path,):
            found.setdefault(os.path.abspath(file), file)
    return list(found.values())


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        if os.path.lexists(path):
            return False
        raise InputError(f"there is no file or folder {path}", "check the path given to --history") from error
    except OSError:
        return False


def _scan(folder: Path, recursive: bool) -> Iterator[Path]:
    """Image files of a folder; hidden files and other kinds are passed over, linked folders are not entered."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}", "check its permissions") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if recursive and entry.is_dir(follow_symlinks=False):
            yield from _scan(Path(entry.path), recursive)
        elif Path(entry.name).suffix.lower() in READABLE | UNREADABLE:
            yield Path(entry.path)


def _name_key(path: Path) -> tuple[object, ...]:
    return (*_natural(path.name), str(path))


def _time_key(path: Path) -> tuple[object, ...]:
    try:
        return (os.lstat(path).st_mtime_ns, *_name_key(path))
    except OSError:
        return (0, *_name_key(path))


def _natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key in which ``2.png`` comes before ``10.png``; digits of any length are compared without ``int``."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    keys = [(0, len(p.lstrip("0")), p.lstrip("0")) if p[0] in "0123456789" else (1, 0, p) for p in pieces]
    return tuple(keys), name


def _inspect(path: Path, reference_sha: str | None, limits: IntakeLimits) -> tuple[HistoryImage, str]:
    """The record of one file, and what to do about it if it is not used."""
    digest = None
    try:
        data = _read(path, limits)
        digest = hashlib.sha256(data).hexdigest()
        if digest == reference_sha:
            reason = "same content as the reference"
            return HistoryImage(path, HistoryStatus.REFERENCE, digest, reason=reason), OTHER_LIKED
        image = _decode(data, limits)
    except UnusableImage as error:
        return HistoryImage(path, HistoryStatus.SKIPPED, digest, reason=str(error)), error.hint
    return HistoryImage(path, HistoryStatus.USED, digest, image.width, image.height), ""


def _read(path: Path, limits: IntakeLimits) -> bytes:
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise UnusableImage("it is a folder")
        if not stat.S_ISREG(found.st_mode):
            raise UnusableImage("it is not a regular file")
        with open(path, "rb") as file:
            data = file.read(limits.file_bytes + 1)
    except (OSError, ValueError) as error:
        hint = CHECK_PERMISSIONS if isinstance(error, PermissionError) else CHECK_PATH
        raise UnusableImage(getattr(error, "strerror", None) or str(error), hint) from error
    if not data:
        raise UnusableImage("the file is empty")
    if len(data) > limits.file_bytes:
        raise UnusableImage(f"the file is larger than {limits.file_bytes / 2**20:.0f} MiB", SMALLER)
    return data


def _decode(data: bytes, limits: IntakeLimits) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > limits.pixels:
                megapixels = f"{limits.pixels / 1e6:.0f} megapixels"
                raise UnusableImage(f"{image.width} x {image.height} is more than {megapixels}", SMALLER)
            image.load()
    except (UnusableImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnusableImage("it is not an image of a known format, or is damaged") from error
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"it has more than {limits.pixels / 1e6:.0f} megapixels", SMALLER) from error
    # Decoders raise whatever the damage makes them trip over (struct, zlib, index and value errors among them).
    except Exception as error:
        raise UnusableImage(f"it is damaged ({error})") from error
    return image


def _nothing_usable(
    paths: Sequence[Path], gathered: Sequence[HistoryImage], hints: Sequence[str], recursive: bool
) -> InputError:
    where = ", ".join(map(str, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    if not gathered:
        hint = "put liked images there" + ("" if recursive else ", or add --recursive")
        return InputError(f"no image in the history {where}", hint)
    named = "; ".join(f"{image.path.name}: {image.reason}" for image in gathered[:3])
    more = f"; and {len(gathered) - 3} more" if len(gathered) > 3 else ""
    message = f"no usable image in the history {where}: {len(gathered)} skipped ({named}{more})"
    return InputError(message, "; ".join(dict.fromkeys(hints)))
