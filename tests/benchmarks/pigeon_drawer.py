"""pigeon itself as the drawer of the quality table: ``--generator tests.benchmarks.pigeon_drawer:bundled``."""

from __future__ import annotations

import hashlib
import os

from PIL import Image

from pigeon_cli import __version__
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.pipeline.session import Session
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.store import find_model
from tests.benchmarks.rows import MASKED_SHARE, Alignment, DroppedTokens, EvaluationRequest, MaskKind, RequestImages

COMMAND_COUNT = 4
"""Default of ``pigeon generate -n``: two images more are drawn, and the best by score is rank 1."""


class PigeonDrawer:
    """One loaded session that draws at the command's defaults, one seed, no retry."""

    def __init__(self, model: str) -> None:
        folder = find_model(model)
        self.session = Session(folder, choose_device("auto"))
        self._fingerprint = hashlib.sha256("".join([__version__, *map(sha256_of, folder.files)]).encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def draw(
        self,
        request: EvaluationRequest,
        images: RequestImages,
        *,
        dial: float | None,
        mask: MaskKind,
        alignment: Alignment,
        words: bool,
        seed: int,
        history_mask: float | None = None,
    ) -> Image.Image:
        outcome = self.session.personalize(
            images.history,
            images.reference,
            request.words if words else "",
            dials=None if dial is None else (dial,),
            samples=None if dial is None else 1,
            count=COMMAND_COUNT if dial is None else 1,
            seed=stream_seed(seed, request.id),
            mask=mask,
            history_mask=history_mask,
            aligned=alignment != "none",
        )
        return outcome.images[0]

    def reconstruct(self, image: Image.Image) -> Image.Image:
        return self.session.reconstruct(image)

    def mask(self, request: EvaluationRequest, images: RequestImages, kind: MaskKind) -> DroppedTokens:
        masks = self.session.masks(
            images.history, images.reference, request.words, mask=kind, history_mask=MASKED_SHARE
        ).history_tokens
        dropped = tuple((image, token) for image, mask in enumerate(masks) for token in mask.dropped)
        return DroppedTokens(dropped, tuple(len(mask.kept) + len(mask.dropped) for mask in masks))


def bundled() -> PigeonDrawer:
    """The bundled model, or the folder that the environment variable PIGEON_MODEL names."""
    return PigeonDrawer(os.environ.get("PIGEON_MODEL", "mini"))
