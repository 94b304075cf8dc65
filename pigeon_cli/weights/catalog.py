"""The one list of models that can be had, typed: which parts they have, from where, which files, under which licence.

Source: issue 4, section 1. The list itself is data, ``catalog.json`` beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

from pigeon_cli.core.errors import UsageError, WeightsError
from pigeon_cli.weights.shards import missing_shards


@dataclass(frozen=True)
class Licence:
    """What a user has to know before the first byte."""

    name: str
    notice: str
    link: str
    duties: tuple[str, ...]
    accept: bool
    """Whether it has to be accepted; others are only shown."""


@dataclass(frozen=True)
class Wanted:
    """One file of a part, or one set of shards."""

    patterns: tuple[str, ...]
    """Alternatives, the published name first; ``*`` stays within one folder level."""
    shards: bool = False
    optional: bool = False

    def choose(self, names: Sequence[str]) -> tuple[str, ...]:
        """The files of the first alternative that ``names`` holds whole; raises :class:`WeightsError` without any."""
        for pattern in self.patterns:
            found = tuple(sorted(name for name in names if _matches(name, pattern)))
            if found and not (self.shards and missing_shards(found)):
                return found
        if self.optional:
            return ()
        raise WeightsError(
            f"the source lacks {self.patterns[0]}", "check --source: it must hold the published files under their names"
        )


@dataclass(frozen=True)
class Part:
    """One thing to download: a folder of the cache."""

    name: str
    summary: str
    source: str
    """As ``--source`` takes it."""
    licence: Licence | None = None
    commit: str = ""
    """How the commit of ``source`` should begin; empty when any will do."""
    bytes: int = 0
    """About how much there is to fetch; 0 when nobody knows."""
    files: tuple[Wanted, ...] = ()
    alignment: str = ""
    """The scenario, when this is a published alignment, whose files are found by what they are."""

    def choose(self, names: Sequence[str]) -> tuple[str, ...]:
        """The files that are needed, each once, in the order of the catalog."""
        return tuple(dict.fromkeys(name for wanted in self.files for name in wanted.choose(names)))


@dataclass(frozen=True)
class Model:
    """A name that a user types, and the parts behind it; no parts: it is in the package."""

    name: str
    summary: str
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


@dataclass(frozen=True)
class Catalog:
    """Every model by its name; a single part is a model, too."""

    models: Mapping[str, Model]

    def model(self, name: str) -> Model:
        """Raises :class:`UsageError` that lists the names."""
        if name not in self.models:
            raise UsageError(f"there is no model {name!r} to download", f"one of: {', '.join(self.models)}")
        return self.models[name]


@cache
def load_catalog() -> Catalog:
    """The catalog of this package."""
    return parse_catalog(json.loads(files("pigeon_cli.weights").joinpath("catalog.json").read_text("utf-8")))


def parse_catalog(data: Mapping[str, Any]) -> Catalog:
    """The form of ``catalog.json``; an unknown field or name is a ``TypeError`` or ``KeyError``."""
    licences = {key: Licence(**{**entry, "duties": tuple(entry["duties"])}) for key, entry in data["licences"].items()}
    parts = {name: _part(name, entry, licences) for name, entry in data["parts"].items()}
    combined = {
        name: Model(name, entry["summary"], tuple(parts[part] for part in entry["parts"]))
        for name, entry in data["models"].items()
    }
    single = {name: Model(name, part.summary, (part,)) for name, part in parts.items()}
    return Catalog(combined | single)


def _part(name: str, entry: Mapping[str, Any], licences: Mapping[str, Licence]) -> Part:
    wanted = tuple(
        Wanted(tuple(one["any"]), one.get("shards", False), one.get("optional", False))
        for one in entry.get("files", ())
    )
    licence = licences[entry["licence"]] if "licence" in entry else None
    return Part(name, **{**entry, "licence": licence, "files": wanted})


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)
