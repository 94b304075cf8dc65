"""What the verbs of a session give back."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from pigeon_cli.core.records import AS_IT_WAS, Candidate, Framing, ReadLook, StageTiming, TokenMask
from pigeon_cli.engine.plan import Plan
from pigeon_cli.pipeline.settings import Settings


@dataclass(frozen=True)
class Drawing:
    """One image that was drawn, and its record."""

    image: Image.Image
    candidate: Candidate


@dataclass(frozen=True)
class Outcome:
    """What a call of :meth:`Session.personalize` made."""

    drawn: list[Drawing]
    """Every drawn candidate, best first; those with ``candidate.chosen`` are what was asked for."""
    candidates: tuple[Candidate, ...]
    """Every candidate, in the order in which they were tried."""
    history_tokens: tuple[TokenMask, ...]
    settings: Settings
    stages: tuple[StageTiming, ...]
    warnings: tuple[str, ...]
    plan: Plan | None = None
    """What was loaded when; ``None`` where the model stayed in memory as a whole."""
    recognised: str | None = None
    """What the thing is called, of those the model knows by heart, that was asked for."""
    recalled: str | None = None
    """What the thing is called whose drawing, known by heart, took the place of the reference or of one from words: the
    same, or one that the history's hand draws much like it."""
    reference_framing: Framing = AS_IT_WAS
    look: ReadLook | None = None
    """In which the recalled drawing lies over what the image generator drew of it; ``None`` where it does not."""

    @property
    def images(self) -> list[Image.Image]:
        """The chosen images, best first."""
        return [drawing.image for drawing in self.drawn if drawing.candidate.chosen]


@dataclass(frozen=True)
class MaskOutcome:
    """What a call of :meth:`Session.masks` decided."""

    history_tokens: tuple[TokenMask, ...]
    """One per history image; the same at every dial position."""
    reference_tokens: tuple[TokenMask, ...]
    """One per dial position of the settings."""
    settings: Settings
    recognised: str | None = None
    recalled: str | None = None
    """As those of an :class:`Outcome`."""
    reference_framing: Framing = AS_IT_WAS
    reference: Image.Image | None = None
    """The reference as it was read."""
    warnings: tuple[str, ...] = ()
    """As those of an :class:`Outcome`, as far as they are about masks."""
