"""``.npy`` files of strangers: plain arrays, and pickled ones of which nothing but data is let in."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.lib import format as npy

from pigeon_cli.core.errors import InputError

MOST_BYTES: Final = 2**30


class ForbiddenPickle(pickle.UnpicklingError):
    """The file asks for something that is no data."""


def read_array(path: Path) -> Any:
    """The content of ``path`` as plain Python: dicts, lists, tuples, numbers, strings and arrays of numbers or strings.

    Raises :class:`InputError` that names what else the file asks for; nothing of it is imported or called.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
        with path.open("rb") as stream:
            return plain(_read(stream))
    except (
        OSError,
        ValueError,
        EOFError,
        pickle.UnpicklingError,
        AttributeError,
        LookupError,
        TypeError,
        RecursionError,
        # Headers are Python, read by numpy with a parser of its own, and may ask for any size.
        SyntaxError,
        TokenError,
        MemoryError,
        OverflowError,
    ) as error:
        hint = "give .npy files that hold nothing but dicts, lists, numbers, strings and arrays"
        raise InputError(f"cannot read {path}: {error}", hint) from error


def plain(value: Any) -> Any:
    """``value`` with arrays of objects as lists; :class:`ForbiddenPickle` for other types than those read."""
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return plain(value.tolist())
    if isinstance(value, np.ndarray):
        return value.item() if value.ndim == 0 else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise ForbiddenPickle(f"it holds a {type(value).__name__}")


def _read(stream: BinaryIO) -> Any:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format {version} is unknown")
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    _, _, dtype = header(stream)
    if dtype.hasobject:
        return _DataOnly(stream).load()
    stream.seek(0)
    return np.load(stream, allow_pickle=False)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """What old pickles spell bytes with; nothing else passes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ForbiddenPickle("it asks for _codecs.encode with odd arguments")
    return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    # How arrays and their items are pickled, under the names of numpy 1 and 2.
    core = np._core  # type: ignore[attr-defined]
    found: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
    }
    for package in ("numpy.core", "numpy._core"):
        found[f"{package}.multiarray", "_reconstruct"] = core.multiarray._reconstruct
        found[f"{package}.multiarray", "scalar"] = core.multiarray.scalar
        found[f"{package}.numeric", "_frombuffer"] = core.numeric._frombuffer
    return found


class _DataOnly(pickle.Unpickler):
    """An unpickler that knows how to make arrays, and no other name."""

    names = property(lambda self: _allowed())

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.names[module, name]
        except KeyError:
            raise ForbiddenPickle(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise ForbiddenPickle("it refers to objects outside itself")
