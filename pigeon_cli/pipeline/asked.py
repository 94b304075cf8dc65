"""What a call of a session is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image
from torch import Tensor

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.records import AS_IT_WAS, Framing
from pigeon_cli.history.framing import framed_like


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
    recalled: str | None = None
    """What the thing is called whose drawing, known by heart, took the reference's place."""

    def framed(self, spec: ModelSpec) -> Asked:
        """With the reference as a model of ``spec`` is to read it."""
        if self.reference is None or not self.history or not spec.frame_reference:
            return self
        reference, framing = framed_like(self.reference, self.history)
        return replace(self, reference=reference, framing=framing)
