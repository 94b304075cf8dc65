"""The nine icon sets that may be trained on, their families and licences (DESIGN.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from pigeon_cli.core.errors import InputError


@dataclass(frozen=True)
class IconSet:
    """One drawn style: the npm set ``name``, the ``family`` of drawings it shares, the licence of its art (SPDX).

    ``monochrome`` sets are drawn in black alone.
    """

    name: str
    family: str
    licence: str
    monochrome: bool = False

    @property
    def package(self) -> str:
        """Name of the npm package that holds the set."""
        return f"@iconify-json/{self.name}"


# The licence is that of the drawings. fxemoji's package says Apache-2.0, which is its code; its art is CC-BY-4.0.
ICON_SETS: dict[str, IconSet] = {
    icon_set.name: icon_set
    for icon_set in (
        IconSet("fluent-emoji", "fluent", "MIT"),
        IconSet("fluent-emoji-flat", "fluent", "MIT"),
        IconSet("fluent-emoji-high-contrast", "fluent", "MIT", monochrome=True),
        IconSet("noto", "noto", "Apache-2.0"),
        IconSet("noto-v1", "noto", "Apache-2.0"),
        IconSet("twemoji", "twemoji", "CC-BY-4.0"),
        IconSet("emojione", "emojione", "CC-BY-4.0"),
        IconSet("emojione-monotone", "emojione", "CC-BY-4.0", monochrome=True),
        IconSet("fxemoji", "fxemoji", "CC-BY-4.0"),
    )
}
HANDS = tuple(ICON_SETS)
"""Their names in the order of the numbers that a memory has for them."""
WORDS_PACKAGE = "emojibase-data"


def icon_set(name: str) -> IconSet:
    """The set called ``name``; InputError for any other, since share-alike art must not reach shipped weights."""
    if name not in ICON_SETS:
        raise InputError(f"icon set {name!r} may not be trained on", f"use one of: {', '.join(ICON_SETS)}")
    return ICON_SETS[name]
