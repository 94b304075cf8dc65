"""The rows of the quality table: who draws, with what, and against which right answer (DESIGN.md section 3)."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from PIL import Image
from torch import Tensor

from pigeon_cli.core.errors import UsageError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.training.data.dataset import IconDataset, IconRecord
from pigeon_cli.training.data.looks import PLAIN
from pigeon_cli.training.data.requests import TrainingRequest
from tests.benchmarks.judge_constants import looked, wear

MaskKind = Literal["off", "random", "similarity", "learned"]
Alignment = Literal["none", "full"]
MASKS: tuple[MaskKind, ...] = ("off", "random", "similarity", "learned")
MASKED_SHARE = 0.2
"""The protocol's share of dropped history tokens, whatever the model's own is."""


@dataclass(frozen=True)
class EvaluationRequest:
    """A request of the protocol; ``id`` names its PNG in every folder of draws, ``meaning`` groups the bootstrap."""

    id: str
    request: TrainingRequest
    meaning: str

    @property
    def words(self) -> str:
        return self.request.words

    @classmethod
    def of(cls, dataset: IconDataset, request: TrainingRequest) -> EvaluationRequest:
        """``request`` with the id that its content gives it: 16 hexadecimal digits of a SHA-256."""
        text = json.dumps(request.to_json(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return cls(digest, request, dataset.records[request.target].meaning)


@dataclass(frozen=True)
class RequestImages:
    """What the user shows, RGB over white: five history images in order and the reference."""

    history: tuple[Image.Image, ...]
    reference: Image.Image


@dataclass(frozen=True)
class DroppedTokens:
    """What a mask dropped: (history image, token) pairs counted from 0, and how many tokens each image has."""

    dropped: tuple[tuple[int, int], ...]
    tokens: tuple[int, ...]


class Drawer(Protocol):
    """The model under test. Of ``request`` it may read ``id`` and ``words``; the right answer is not its business."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the pixels (weights, version): a cached draw of another one is refused."""

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
        """Image of rank 1; ``dial`` None is the command's own choice, ``history_mask`` None the model's own share of
        dropped history. PigeonError counts as a miss.
        """

    def reconstruct(self, image: Image.Image) -> Image.Image:
        """``image`` through codes and UNet."""

    def mask(self, request: EvaluationRequest, images: RequestImages, kind: MaskKind) -> DroppedTokens:
        """Which history tokens the mask of ``kind`` drops at the protocol's share of 0.2, noise off."""


@dataclass
class Context:
    """What rows draw from."""

    dataset: IconDataset
    seed: int
    drawer: Drawer | None = None
    dial: float = 0.2
    mask: MaskKind = "learned"

    def model(self) -> Drawer:
        """The model under test; UsageError when none was named."""
        if self.drawer is None:
            raise UsageError("this row needs a model", "name one: --generator MODULE:FUNCTION")
        return self.drawer

    def images(self, request: TrainingRequest) -> RequestImages:
        """History under its looks and the plain reference."""
        records = self.dataset.records
        pairs = list(zip([records[i] for i in request.history], request.history_looks(), strict=True))
        pictures = [to_picture(image) for image in looked(self.dataset, [*pairs, (records[request.reference], PLAIN)])]
        return RequestImages(tuple(pictures[:-1]), pictures[-1])

    def answer(self, request: TrainingRequest) -> Tensor:
        """The right answer, float [1, 3, H, W]."""
        return looked(self.dataset, [(self.dataset.records[request.target], request.look)])


Draw = Callable[[Context, EvaluationRequest], Image.Image]


@dataclass(frozen=True)
class Row:
    """One row of the table; ``swapped`` gives every request the history, and the right answer, of another user."""

    name: str
    says: str
    draw: Draw
    needs_model: bool = False
    swapped: bool = False


@dataclass(frozen=True)
class Setting:
    """Arguments of one row that draws with the model; None takes the context's."""

    dial_is_auto: bool = False
    mask: MaskKind | None = None
    alignment: Alignment = "full"
    words: bool = True
    history_mask: float | None = None

    def __call__(self, context: Context, request: EvaluationRequest) -> Image.Image:
        return context.model().draw(
            request,
            context.images(request.request),
            dial=None if self.dial_is_auto else context.dial,
            mask=self.mask or context.mask,
            alignment=self.alignment,
            words=self.words,
            seed=context.seed,
            history_mask=self.history_mask,
        )


def to_picture(image: Tensor) -> Image.Image:
    """Float [3, H, W] in 0..1 -> RGB picture."""
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def copy_reference(context: Context, request: EvaluationRequest) -> Image.Image:
    """The reference as it is."""
    return context.images(request.request).reference


def copy_history(context: Context, request: EvaluationRequest) -> Image.Image:
    """One history image, its place fixed by the request's id."""
    history = context.images(request.request).history
    return history[int(request.id, 16) % len(history)]


def retrieve(context: Context, request: EvaluationRequest) -> Image.Image:
    """The train cell of the user's set, under the user's look, whose words overlap most with those of the meaning.

    It is told the meaning's own label, tags and group even when the request has no words: a generous baseline. A shared
    word counts by its rarity among the set's train cells; ties go to the same subgroup, then to the first id.
    """
    wanted = context.dataset.records[request.request.target]
    cells = context.dataset.train_by_set[request.request.set]
    tokens = [_tokens(cell) for cell in cells]
    counts: dict[str, int] = {}
    for each in tokens:
        for word in each:
            counts[word] = counts.get(word, 0) + 1
    asked = _tokens(wanted)

    def overlap(row: int) -> tuple[float, bool, int]:
        shared = sum(1 / counts[word] for word in asked & tokens[row])
        return shared, cells[row].subgroup == wanted.subgroup, -cells[row].id

    nearest = cells[max(range(len(cells)), key=overlap)]
    return to_picture(looked(context.dataset, [(nearest, request.request.look)])[0])


def _tokens(record: IconRecord) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", " ".join([record.label, record.name, *record.tags]).lower()))


def rough(level: float) -> Draw:
    """A rough copy of the right answer (``wear``): what the judge says of a good drawing badly made."""

    def draw(context: Context, request: EvaluationRequest) -> Image.Image:
        generator = torch.Generator().manual_seed(stream_seed(context.seed, "rough", level, request.id))
        return to_picture(wear(context.answer(request.request), level, generator)[0])

    return draw


def ceiling(context: Context, request: EvaluationRequest) -> Image.Image:
    """The right answer through codes and UNet."""
    return context.model().reconstruct(to_picture(context.answer(request.request)[0]))


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("auto", "ours, the command's defaults", Setting(dial_is_auto=True), True),
        Row("dial", "ours at a fixed dial, one candidate; so are all rows with a model below", Setting(), True),
        Row("base", "without alignment", Setting(alignment="none"), True),
        # A model that drops nothing unless asked would draw the same under every mask.
        *(
            Row(f"mask-{kind}", f"history mask: {kind}", Setting(mask=kind, history_mask=MASKED_SHARE), True)
            for kind in MASKS
        ),
        Row("words-off", "no words", Setting(words=False), True),
        Row("swapped", "history of another user, judged by that user's right answer", Setting(), True, swapped=True),
        Row("copy-reference", "copy of the reference", copy_reference),
        Row("copy-history", "copy of a history image", copy_history),
        Row("retrieval", "nearest train image of the set by words, under the look", retrieve),
        Row("rough-1", "right answer, mildly worn (what the judge forgives)", rough(1.0)),
        Row("rough-2", "right answer, strongly worn", rough(2.0)),
        Row("ceiling", "right answer through codes and UNet", ceiling, True),
    )
}


def swap_histories(dataset: IconDataset, requests: Sequence[EvaluationRequest]) -> list[EvaluationRequest | None]:
    """Every request with the set, look and history of the next user whose set has the meaning; None where none has.

    The new set is of another family than the reference, and the new history does not show the new right answer.
    """
    return [_swapped(dataset, requests, place) for place in range(len(requests))]


def _swapped(dataset: IconDataset, requests: Sequence[EvaluationRequest], place: int) -> EvaluationRequest | None:
    old = requests[place]
    reference = dataset.records[old.request.reference]
    for step in range(1, len(requests)):
        other = requests[(place + step) % len(requests)].request
        target = dataset.by_cell.get((old.meaning, other.set))
        if target is None or other.set == old.request.set or target.family == reference.family:
            continue
        if target.twins in {reference.twins, *(dataset.records[i].twins for i in other.history)}:
            continue
        request = replace(
            old.request,
            set=other.set,
            look=other.look,
            history=other.history,
            planted=other.planted,
            target=target.id,
        )
        return replace(old, request=request)
    return None


def load_drawer(name: str) -> Drawer:
    """The drawer that ``MODULE:FUNCTION`` returns when called without arguments."""
    module, _, function = name.partition(":")
    try:
        make: Callable[[], Drawer] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"no generator {name!r}: {error}", "give it as MODULE:FUNCTION") from error
    return make()
