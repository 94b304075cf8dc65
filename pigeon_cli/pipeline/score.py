"""How well a candidate agrees with the history, the reference and the words, before and after it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import sentencepiece
import torch
from torch import Tensor

from pigeon_cli.core.records import ScoreParts
from pigeon_cli.models.scorer import Scorer


@dataclass(frozen=True)
class Wanted:
    """What candidates are compared with: float32 unit vectors of the scorer."""

    styles: Tensor
    """[history images, W]."""
    reference: Tensor | None
    """[W], or ``None`` without a reference image."""
    words: Tensor | None
    """[W], or ``None`` without words."""


def wanted_of(
    scorer: Scorer,
    text: sentencepiece.SentencePieceProcessor,
    history_context: Tensor,
    reference_context: Tensor | None,
    words: str,
) -> Wanted:
    """Vectors of decoder contexts [images, Q, C] of the history and [1, Q, C] of the reference, and of the words."""
    ids = torch.tensor([text.encode(words)], dtype=torch.int64, device=history_context.device)
    return Wanted(
        styles=scorer(history_context)[1].float(),
        reference=None if reference_context is None else scorer(reference_context)[0][0].float(),
        words=scorer.words(ids, torch.ones_like(ids, dtype=torch.bool))[0].float() if ids.numel() else None,
    )


def rate(scorer: Scorer, context: Tensor, wanted: Wanted) -> list[tuple[float, ScoreParts]]:
    """Total and parts of every candidate by its decoder context [B, Q, C].

    The parts are cosines; the total adds them up in units of their deviations over train requests.
    """
    meaning, style = (vectors.float() for vectors in scorer(context))
    history = (style @ wanted.styles.T).mean(1)
    reference, words = (None if each is None else meaning @ each for each in (wanted.reference, wanted.words))
    standard = [
        None if cosines is None else (cosines - scorer.standard_mean[place]) / scorer.standard_deviation[place]
        for place, cosines in enumerate((history, reference, words))
    ]
    asked = [values for values in standard[1:] if values is not None]
    liked = (history - scorer.standard_mean[0]) / scorer.standard_deviation[0]
    share = scorer.config.history_share
    totals = share * liked + (1 - share) * torch.stack(asked).mean(0) if asked else liked
    columns = [None if part is None else part.tolist() for part in (history, reference, words)]
    return [
        (total, ScoreParts(*(None if column is None else column[row] for column in columns)))
        for row, total in enumerate(totals.tolist())
    ]
