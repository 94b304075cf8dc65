"""JSON documents as deterministic text of their records, and the schemas of ``report.json`` and ``masks.json``."""

from __future__ import annotations

import json
import math
import re
from importlib.resources import files
from typing import Any, Final, Protocol

from pigeon_cli.core.records import MASKS_VERSION, REPORT_VERSION

SCHEMA_NAME: Final = f"report-v{REPORT_VERSION}.schema.json"
MASKS_SCHEMA_NAME: Final = f"masks-v{MASKS_VERSION}.schema.json"
SIGNIFICANT_DIGITS: Final = 7
"""What a 32-bit float carries; more would be the noise of its widening."""

_NUMBER_LIST: Final = re.compile(r"\[\n[-+.\deE,\s]+\]")


class Document(Protocol):
    """A record that is written as a file of its own."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types in the order of the file."""


def report_bytes(report: Document) -> bytes:
    """UTF-8 JSON in the schema's order, lists of numbers on one line, a line end at the end.

    NaN and infinities become ``null``; undecodable bytes of a file name become ``\\udcXX`` escapes.
    """
    text = json.dumps(tidy(report.to_dict()), ensure_ascii=False, allow_nan=False, indent=2)
    # JSON escapes line ends within strings, so a real one after "[" is always layout.
    text = _NUMBER_LIST.sub(lambda match: re.sub(r"\s+", " ", match[0]).replace("[ ", "[").replace(" ]", "]"), text)
    return (text + "\n").encode("utf-8", errors="backslashreplace")


def read_schema(name: str = SCHEMA_NAME) -> dict[str, Any]:
    """The JSON schema of this version's ``report.json``, or another one of the package."""
    schema: dict[str, Any] = json.loads(files("pigeon_cli.report").joinpath(name).read_text("utf-8"))
    return schema


def tidy(value: Any) -> Any:
    """Floats at seven significant digits, NaN and infinities as ``None``."""
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: tidy(entry) for key, entry in value.items()}
    return [tidy(entry) for entry in value] if isinstance(value, list) else value
