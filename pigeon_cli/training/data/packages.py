"""npm packages on disk -> icons in memory. Nothing is unpacked: the JSON is read out of each ``.tgz``."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pigeon_cli.core.errors import InputError
from pigeon_cli.training.data.sets import ICON_SETS, WORDS_PACKAGE, icon_set

# A digit, the asterisk and the pound sign are drawn as keycaps.
_NOT_A_MEANING = re.compile(r"^(flag|keycap|regional|tag|digit)-|flag$|skin-tone|^(asterisk|pound-symbol)$")
_TONE_SUFFIX = re.compile(r"(-(medium-)?(light|dark)|-medium)+$")
_NOT_LETTERS = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True)
class Icon:
    """One drawing of a package: ``body`` is SVG markup inside the box ``left top width height``."""

    set: str
    name: str
    body: str
    box: tuple[float, float, float, float]
    hidden: bool

    @property
    def meaning(self) -> str:
        """The name reduced to a-z0-9: what the same icon is called in every set."""
        return meaning_of(self.name)


@dataclass(frozen=True)
class IconPackage:
    """One icon set as shipped: ``aliases`` maps further names to drawings, ``hexcodes`` code points to names."""

    set: str
    version: str
    sha256: str
    attribution: str
    icons: tuple[Icon, ...]
    aliases: dict[str, str]
    hexcodes: dict[str, str]


def meaning_of(name: str) -> str:
    """``name`` reduced to a-z0-9 (DESIGN.md section 3)."""
    return _NOT_LETTERS.sub("", name.lower())


def fetch_packages(folder: Path) -> None:
    """Put the ``.tgz`` of all icon sets and of the words into ``folder`` with ``npm pack``; InputError if it fails."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError("npm was not found", "install Node.js, or pass a folder that holds the packages as .tgz")
    names = [entry.package for entry in ICON_SETS.values()] + [WORDS_PACKAGE]
    done = subprocess.run([npm, "pack", "--silent", *names], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"npm pack failed: {done.stderr.strip()[-400:]}", "check the network and the npm registry")


def read_packages(folder: Path) -> tuple[list[IconPackage], dict[str, Any]]:
    """All icon packages of ``folder`` in a fixed order, and the words package as name -> content.

    Raises InputError for a file that is no npm package, for a set that is not among the nine, and when either
    the icons or the words are missing.
    """
    packages: dict[str, IconPackage] = {}
    words: dict[str, Any] = {}
    for path in sorted(folder.glob("*.tgz")):
        manifest = _members(path, ["package.json"])["package.json"]
        name = str(manifest["name"])
        if name == WORDS_PACKAGE:
            words = _read_words(path, manifest)
        elif name.startswith("@iconify-json/"):
            packages[name] = _read_icons(path, manifest)
        else:
            raise InputError(f"{path} is the package {name}, which is no icon set", "remove it from the folder")
    if not packages or not words:
        missing = WORDS_PACKAGE if packages else "@iconify-json/*"
        raise InputError(f"{folder} holds no {missing} package (.tgz)", f"run: npm pack {missing}")
    return [packages[name] for name in sorted(packages)], words


def _members(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """The JSON files ``names`` of the npm package at ``path``."""
    found: dict[str, Any] = {}
    try:
        with tarfile.open(path) as archive:
            for name in names:
                member = archive.extractfile(f"package/{name}")
                if member is None:
                    raise KeyError(name)
                found[name] = json.load(member)
    except (OSError, EOFError, tarfile.TarError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an npm package: {error}", "fetch it again: npm pack") from error
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_words(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    content = _members(path, ["en/data.json", "meta/groups.json"])
    return {
        "version": manifest["version"],
        "sha256": _sha256(path),
        "emoji": content["en/data.json"],
        "groups": content["meta/groups.json"],
    }


def _read_icons(path: Path, manifest: dict[str, Any]) -> IconPackage:
    content = _members(path, ["icons.json", "info.json", "chars.json"])
    icons, info = content["icons.json"], content["info.json"]
    entry = icon_set(str(icons["prefix"]))
    author = info["author"]
    drawn = icons["icons"]
    kept = tuple(_icon(entry.name, name, drawn[name], icons) for name in sorted(drawn) if _is_meaning(name, drawn))
    return IconPackage(
        set=entry.name,
        version=str(manifest["version"]),
        sha256=_sha256(path),
        attribution=f"{info['name']} by {author['name']} ({author.get('url', '')})",
        icons=kept,
        # A flipped or rotated alias is another drawing, not another name.
        aliases={a: v["parent"] for a, v in icons.get("aliases", {}).items() if set(v) <= {"parent", "hidden"}},
        hexcodes={code.upper(): name for code, name in content["chars.json"].items()},
    )


def _is_meaning(name: str, names: dict[str, Any]) -> bool:
    if _NOT_A_MEANING.search(name):
        return False
    plain = _TONE_SUFFIX.sub("", name)
    return plain == name or plain not in names


def _icon(set_name: str, name: str, raw: dict[str, Any], defaults: dict[str, Any]) -> Icon:
    left, top, width, height = (
        float(raw.get(key, defaults.get(key, start)))
        for key, start in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return Icon(set_name, name, str(raw["body"]), (left, top, width, height), bool(raw.get("hidden", False)))
