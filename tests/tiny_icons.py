"""Small npm packages of made-up icon sets, with everything in them that must not become an image."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

SETS = ("noto", "noto-v1", "twemoji", "fluent-emoji-high-contrast")
MEANINGS = [f"thing-{number}" for number in range(120)]


def pack_package(path: Path, files: dict[str, Any]) -> None:
    """Write an npm package of JSON ``files``."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _body(set_name: str, number: int) -> str:
    colour = "currentColor" if set_name.endswith("contrast") else f"hsl({37 * number % 360},80%,50%)"
    at = SETS.index(set_name)
    return (
        f'<rect x="{1 + number % 7}" y="{1 + at}" width="{4 + number % 5}" height="{4 + number % 9}" fill="{colour}"/>'
        f'<circle cx="{3 + number % 10}" cy="{3 + number // 10}" r="{2 + at / 2}" fill="{colour}" opacity=".8"/>'
    )


def _write_set(folder: Path, set_name: str) -> None:
    icons: dict[str, Any] = {name: {"body": _body(set_name, n)} for n, name in enumerate(MEANINGS)}
    # What must not become an image of its own, or not at all.
    for name in ("flag-nowhere", "keycap-3", "digit-three", "thing-1-dark-skin-tone", "thing-1-medium-dark"):
        icons[name] = {"body": _body(set_name, 5)}
    icons["thing-1-medium"] = {"body": _body(set_name, 5)}
    icons["woman-thing-7"] = {"body": _body(set_name, 55)}
    icons["tall"] = {"body": '<rect width="8" height="16" fill="red"/>', "width": 8}
    icons["banner"] = {"body": _body(set_name, 9)}
    if set_name != "twemoji":
        icons["second-name"] = {"body": _body(set_name, 11)}
    if set_name in ("noto", "twemoji"):
        icons["rare"] = {"body": _body(set_name, 44)}
    pack_package(
        folder / f"iconify-json-{set_name}-1.0.0.tgz",
        {
            "package.json": {"name": f"@iconify-json/{set_name}", "version": "1.0.0"},
            "icons.json": {
                "prefix": set_name,
                "icons": icons,
                "aliases": {"other-thing-2": {"parent": "thing-2"}, "turned": {"parent": "thing-3", "hFlip": True}},
                "width": 16,
                "height": 16,
            },
            "info.json": {"name": set_name.title(), "author": {"name": "Ann", "url": "https://example.org"}},
            "chars.json": {"1f600": "thing-4"},
        },
    )


def _write_words(folder: Path) -> None:
    emoji = [
        {"hexcode": "1F600", "label": "Grinning thing", "tags": ["smile"], "group": 0, "subgroup": 1},
        {"hexcode": "1F3F4", "label": "banner", "group": 9, "subgroup": 2},
        {"hexcode": "1F601", "label": "other thing 2", "tags": ["alias"], "group": 0, "subgroup": 1},
    ]
    groups = {"groups": {"0": "smileys", "9": "flags"}, "subgroups": {"1": "face", "2": "flag"}}
    manifest = {"name": "emojibase-data", "version": "9.0.0"}
    files = {"package.json": manifest, "en/data.json": emoji, "meta/groups.json": groups}
    pack_package(folder / "emojibase-data-9.0.0.tgz", files)


def write_icon_packages(folder: Path) -> None:
    """Write every set of ``SETS`` and the words as npm packages."""
    for set_name in SETS:
        _write_set(folder, set_name)
    _write_words(folder)
