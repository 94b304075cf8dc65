"""What a call of a session is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from PIL import Image
from torch import Tensor

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.records import AS_IT_WAS, Framing
from pigeon_cli.history.framing import framed_like
from pigeon_cli.pipeline.looks import WornDrawing

FOLLOW_REFERENCE: Final = "to have a reference image followed, give --ref IMG and --ref-mask 0"
"""Both options: a reference that was given may have been put aside, and words have no reference to follow."""


@dataclass(frozen=True)
class Asked:
    """Liked images and their titles, and a reference image or words."""

    history: Sequence[Image.Image]
    reference: Image.Image | None
    words: str
    titles: Sequence[str]
    framing: Framing = AS_IT_WAS
    """What was done to the reference."""
    tastes: Tensor | None = None
    """Float [images, width] of the history, where they have been read already."""
    turned: int = 0
    """Degrees clockwise by which the history's drawings are turned, as far as the memory tells."""
    plain: Tensor | None = None
    """Scaled latents [images, c, h, w] of the plain drawings that the history's images are taken for, zero where they
    are taken for none."""
    recognised: str | None = None
    """What the thing is called, of those the model knows by heart, that is asked for."""
    recalled: str | None = None
    """What the thing is called whose drawing took the reference's place: the same, or one that is drawn much alike."""
    by_own_hand: bool = False
    """Whether that drawing is by the hand that drew the history, as far as can be told."""
    foretold: bool = False
    """Whether that hand never drew it, and the drawing is another's in the colours that it should have."""
    worn: WornDrawing | None = None
    """That drawing, or the reference where none was recalled, as it is to be seen over what the image generator
    draws."""
    by_other_hand: bool = False
    """Whether nothing else was known than a drawing by a hand that is not near to the history's."""

    def warnings(self) -> tuple[str, ...]:
        """A sentence where a guess, another hand's drawing or another thing stands in for what was asked for."""
        if self.foretold:
            return (
                f"no drawing of {self.recalled!r} by a hand like the history's is known: another hand's stands in, in "
                f"colours that were foretold ({FOLLOW_REFERENCE})",
            )
        if self.by_other_hand:
            return (
                f"no drawing of {self.recalled!r} by a hand like the history's is known: another hand's lines stay, "
                f"in the history's colours ({FOLLOW_REFERENCE})",
            )
        if self.recalled == self.recognised or self.recalled is None:
            return ()
        return (
            f"no drawing of {self.recognised!r} by a hand like the history's is known: its {self.recalled!r}, "
            f"which should be much alike, stands in ({FOLLOW_REFERENCE})",
        )

    def framed(self, spec: ModelSpec) -> Asked:
        """With the reference as a model of ``spec`` is to read it."""
        if self.reference is None or not self.history or not spec.frame_reference:
            return self
        reference, framing = framed_like(self.reference, self.history, self.turned)
        worn = self.worn
        if worn is not None and worn.framed:
            worn = replace(worn, drawing=reference)
        return replace(self, reference=reference, framing=framing, worn=worn)
