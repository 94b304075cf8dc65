"""What measures drawn images: structure by pixels, perception by LPIPS, content by the encoders' features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pigeon_cli.core.evaluation import Interval, Measure
from pigeon_cli.evaluation.pictures import Shown
from pigeon_cli.metrics.frechet import frechet_distance
from pigeon_cli.metrics.similarity import cosine_scores

if TYPE_CHECKING:
    from pigeon_cli.evaluation.encoders import ClipEncoder, ImageEncoder

Prepared = TypeVar("Prepared")
Values = list[float | None]
AGAINST: Final = ("reference", "history", "target")


class Instrument(Protocol):
    """One metric in all its columns."""

    @property
    def measures(self) -> tuple[Measure, ...]: ...

    def measure(self, drawn: Sequence[Image.Image], shown: Shown) -> list[Values]:
        """One list per drawn image, one value per measure; ``None`` where the request lacks what is compared."""


@dataclass(frozen=True)
class PairMetric:
    """A number for two images."""

    name: str
    higher_is_better: bool
    says: str


class PairInstrument(Generic[Prepared]):
    """Numbers for two images: ``prepare`` sees float [N, 3, S, S] in 0..1 once, ``compare`` one image against N.

    ``compare`` gives a tensor [N] for each of ``metrics``.
    """

    def __init__(
        self,
        metrics: Sequence[PairMetric],
        prepare: Callable[[Tensor], Prepared],
        compare: Callable[[Prepared, Prepared], Sequence[Tensor]],
        device: torch.device,
    ) -> None:
        self._prepare, self._compare, self._device = prepare, compare, device
        self._none: Values = [None] * len(metrics)
        self.measures = tuple(
            Measure(each.name, against, each.higher_is_better, each.says) for each in metrics for against in AGAINST
        )

    @torch.inference_mode()
    def measure(self, drawn: Sequence[Image.Image], shown: Shown) -> list[Values]:
        """Means over the images of each of AGAINST."""
        sides = [self._prepared(images) for images in _compared(shown)]
        return [self._values(self._prepared((image,)), sides) for image in drawn]

    def _prepared(self, images: Sequence[Image.Image]) -> Prepared | None:
        return self._prepare(_tensors(images, self._device)) if images else None

    def _values(self, one: Prepared | None, sides: Sequence[Prepared | None]) -> Values:
        columns = [
            self._none if one is None or side is None else [float(each.mean()) for each in self._compare(one, side)]
            for side in sides
        ]
        return [value for values in zip(*columns, strict=True) for value in values]


class FeatureInstrument:
    """100 * cosine of an encoder's features; keeps those of drawn and target images for the distance of sets."""

    def __init__(self, metric: str, encoder: ImageEncoder, says: str) -> None:
        self._encoder = encoder
        self.measures = tuple(Measure(metric, against, True, says) for against in AGAINST)
        self.seen: list[tuple[Tensor, Tensor | None]] = []
        """Features [rows, D] of drawn images and [1, D] of the target, one entry per request."""

    def measure(self, drawn: Sequence[Image.Image], shown: Shown) -> list[Values]:
        """Mean cosine with the images of each of AGAINST."""
        sides = _compared(shown)
        features = self._encoder.images([*drawn, *(image for side in sides for image in side)])
        own, *others = features.split([len(drawn), *map(len, sides)])
        self.seen.append((own, others[-1] if len(others[-1]) else None))
        means = [cosine_scores(own, other).mean(1).tolist() if len(other) else [None] * len(own) for other in others]
        return [list(values) for values in zip(*means, strict=True)]


class WordInstrument:
    """CS: 100 * cosine of CLIP features of an image and of words, the request's and those beside its history."""

    def __init__(self, encoder: ClipEncoder) -> None:
        self._encoder = encoder
        says = "100 * cosine of CLIP features, image with words"
        self.measures = (
            Measure("CS", "words", True, says),
            Measure("CS", "history", True, f"{says} beside the liked images (NAME.txt), mean"),
        )

    def measure(self, drawn: Sequence[Image.Image], shown: Shown) -> list[Values]:
        """Scores per image, ``None`` without words."""
        texts = [[text for text in each if text] for each in ((shown.words,), shown.history_words)]
        if not any(texts):
            return [[None, None] for _ in drawn]
        images = self._encoder.images(drawn)
        columns = [self._scores(images, each) for each in texts]
        return [list(values) for values in zip(*columns, strict=True)]

    def _scores(self, images: Tensor, texts: Sequence[str]) -> Values:
        if not texts:
            return [None] * len(images)
        words = torch.cat([self._encoder.words(text) for text in texts])
        scores: Values = cosine_scores(images, words).mean(1).tolist()
        return scores


def distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> Interval | None:
    """Frechet distance between drawn [D] and target [1, D] features, without interval; ``None`` below two pairs."""
    if len(pairs) < 2:
        return None
    drawn, targets = torch.stack([one for one, _ in pairs]), torch.cat([other for _, other in pairs])
    return Interval(frechet_distance(drawn, targets), None, None, len(pairs))


def _compared(shown: Shown) -> list[tuple[Image.Image, ...]]:
    """The images of each of AGAINST."""
    reference, target = (() if image is None else (image,) for image in (shown.reference, shown.target))
    return [reference, shown.history, target]


def _tensors(images: Sequence[Image.Image], device: torch.device) -> Tensor:
    """RGB images of one size to float [N, 3, S, S] in 0..1."""
    stacked = torch.from_numpy(np.stack([np.array(image) for image in images]))
    return stacked.to(device).permute(0, 3, 1, 2).float() / 255
