"""Words for a meaning, from emojibase-data (MIT): label, tags, group, subgroup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pigeon_cli.training.data.packages import IconPackage, meaning_of

_FLAGS_GROUP = "flags"
_COMPONENT_GROUP = "component"


@dataclass(frozen=True)
class Words:
    """What a meaning is called. ``tags`` are single key words; ``group`` and ``subgroup`` are '' when unknown."""

    label: str
    tags: tuple[str, ...] = ()
    group: str = ""
    subgroup: str = ""

    @property
    def is_picture(self) -> bool:
        """False for flags and for parts of other emoji (skin tones, hair)."""
        return self.group not in (_FLAGS_GROUP, _COMPONENT_GROUP)


class WordBook:
    """Looks a meaning up by its name, by the code point an icon set gives that name, and by the set's aliases."""

    def __init__(self, words: dict[str, Any], packages: Sequence[IconPackage]) -> None:
        groups = words["groups"]
        by_hexcode: dict[str, Words] = {}
        self._by_meaning: dict[str, Words] = {}
        for emoji in words["emoji"]:
            entry = Words(
                label=str(emoji["label"]).lower(),
                tags=tuple(str(tag) for tag in emoji.get("tags", ())),
                group=str(groups["groups"].get(str(emoji.get("group")), "")),
                subgroup=str(groups["subgroups"].get(str(emoji.get("subgroup")), "")),
            )
            by_hexcode[_plain_hexcode(str(emoji["hexcode"]))] = entry
            self._by_meaning.setdefault(meaning_of(entry.label), entry)
        for package in packages:
            for hexcode, name in package.hexcodes.items():
                if found := by_hexcode.get(_plain_hexcode(hexcode)):
                    self._by_meaning.setdefault(meaning_of(name), found)
        for package in packages:
            for alias, name in package.aliases.items():
                self._link(meaning_of(alias), meaning_of(name))

    def _link(self, first: str, second: str) -> None:
        for new, known in ((first, second), (second, first)):
            if found := self._by_meaning.get(known):
                self._by_meaning.setdefault(new, found)

    def words(self, meaning: str, name: str) -> Words:
        """Words of ``meaning``; where emojibase knows none, the icon's ``name`` with spaces for dashes."""
        return self._by_meaning.get(meaning) or Words(name.replace("-", " "))


def _plain_hexcode(hexcode: str) -> str:
    return "-".join(part for part in hexcode.upper().split("-") if part != "FE0F")
