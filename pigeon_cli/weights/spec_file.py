"""``config.json`` of a model folder <-> :class:`ModelSpec`, strictly: an unknown or missing field is an error."""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import WeightsError


def read_spec(path: Path) -> ModelSpec:
    """Read ``config.json``; raises :class:`WeightsError` that names the file and the field."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return typing.cast(ModelSpec, _build(ModelSpec, data, "config"))
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(
            f"cannot read the model configuration {path}: {error}", "point --model at a complete model folder"
        ) from error


def spec_text(spec: ModelSpec) -> str:
    """The JSON text that :func:`read_spec` reads back to an equal value."""
    return json.dumps(dataclasses.asdict(spec), indent=2) + "\n"


def change_spec(path: Path, change: Callable[[ModelSpec], ModelSpec]) -> None:
    """Write ``config.json`` anew as ``change`` makes of what it says now, which may have been edited since it was read.

    Raises as :func:`read_spec`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(spec_text(change(read_spec(path))), encoding="utf-8")
    os.replace(temporary, path)


def _build(kind: Any, value: Any, where: str) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if value is None else _build(options[0], value, where)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if typing.get_origin(kind) is tuple:
        return tuple(value)
    if kind is float and isinstance(value, int):
        return float(value)
    return value


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is no JSON object")
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(value) - names)
    if unknown:
        raise ValueError(f"{where} has the unknown field {unknown[0]!r}")
    return kind(**{name: _build(hints[name], value[name], f"{where}.{name}") for name in value})
