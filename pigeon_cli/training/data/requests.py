"""What is asked of the model: a user's history, a reference, words, and the right answer (DESIGN.md section 3)."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.training.data.dataset import IconDataset, IconRecord
from pigeon_cli.training.data.looks import HELD_OUT_KINDS, TRAIN_KINDS, Look, draw_look
from pigeon_cli.training.data.sets import ICON_SETS

EVALUATION_SPLITS = ("valid", "test", "unseen")
EVALUATION_HISTORY = 5


@dataclass(frozen=True)
class PlantedImage:
    """An image in the history that is not of the user's taste: at ``position``, image ``id`` under ``look``."""

    position: int
    set: str
    look: Look
    id: int


@dataclass(frozen=True)
class TrainingRequest:
    """One user who asks for one thing.

    ``history`` holds image ids in order, the planted ones in their places. All images of ``set`` in it, and the right
    answer ``target``, are seen under ``look``; a planted image under its own; ``reference`` plain.
    ``words`` is '' when the user says nothing.
    """

    set: str
    look: Look
    history: tuple[int, ...]
    planted: tuple[PlantedImage, ...]
    reference: int
    words: str
    target: int

    def history_looks(self) -> tuple[Look, ...]:
        """The look of every history image, in order."""
        strange = {image.position: image.look for image in self.planted}
        return tuple(strange.get(position, self.look) for position in range(len(self.history)))

    def to_json(self) -> dict[str, Any]:
        """A JSON object; ``from_json`` is its inverse."""
        planted = [
            {"position": image.position, "set": image.set, "look": image.look.to_json(), "id": image.id}
            for image in self.planted
        ]
        return {
            "set": self.set,
            "look": self.look.to_json(),
            "history": list(self.history),
            "planted": planted,
            "reference": self.reference,
            "words": self.words,
            "target": self.target,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TrainingRequest:
        """The request of ``to_json``."""
        planted = tuple(
            PlantedImage(entry["position"], entry["set"], Look.from_json(entry["look"]), entry["id"])
            for entry in value["planted"]
        )
        return cls(
            set=value["set"],
            look=Look.from_json(value["look"]),
            history=tuple(value["history"]),
            planted=planted,
            reference=value["reference"],
            words=value["words"],
            target=value["target"],
        )


def draw_training_request(
    dataset: IconDataset, rng: random.Random, history: tuple[int, int] = (2, 5), planted_share: float = 0.4
) -> TrainingRequest:
    """A request made of train cells and trained looks only, reference and planted images included.

    ``history`` is the least and the most images, planted ones among them; ``planted_share`` of the users have one
    planted image, or two when at least four images leave the taste in the majority.
    """
    target, reference = _draw_pair(dataset, rng)
    look = _look_for(target.set, rng, TRAIN_KINDS)
    count = rng.randint(*history)
    planted = 0
    if count > 1 and rng.random() < planted_share:
        planted = rng.randint(1, 2) if count >= 4 else 1
    return _request(dataset, rng, target, reference, look, count, planted, with_words=rng.random() < 0.5)


def draw_evaluation_requests(
    dataset: IconDataset,
    split: str,
    count: int,
    seed: int,
    held_out_looks: bool = False,
    planted: int = 0,
) -> list[TrainingRequest]:
    """``count`` requests of the evaluation protocol; the same arguments give the same list.

    Five history images from train cells, ``planted`` (0 to 2) of them of another set and look; target a cell of
    ``split``, for 'unseen' one of a meaning no style of which is trained on; reference the same meaning in another
    family; words in every second request; looks from the trained kinds, or from the held-out ones.
    Every target cell is used once before any is used again. Raises InputError for another ``split`` or ``planted``,
    and when the dataset has no fitting target.
    """
    if split not in EVALUATION_SPLITS or planted not in (0, 1, 2):
        raise InputError(
            f"no evaluation requests for split {split!r} with {planted} planted images",
            f"split is one of {', '.join(EVALUATION_SPLITS)}; planted is 0, 1 or 2",
        )
    rng = random.Random(stream_seed(seed, "requests", split, held_out_looks, planted))
    targets = _evaluation_targets(dataset, split)
    if not targets:
        raise InputError(f"the dataset has no {split} cell with a reference in another family", "build it again")
    kinds = HELD_OUT_KINDS if held_out_looks else TRAIN_KINDS
    requests: list[TrainingRequest] = []
    while len(requests) < count:
        for target in rng.sample(targets, len(targets))[: count - len(requests)]:
            reference = rng.choice(_references(dataset, target))
            look = _look_for(target.set, rng, kinds)
            words = len(requests) % 2 == 0
            requests.append(_request(dataset, rng, target, reference, look, EVALUATION_HISTORY, planted, words))
    return requests


def requests_to_text(requests: Sequence[TrainingRequest]) -> str:
    """The request file: one JSON object a line, keys sorted."""
    return "".join(json.dumps(request.to_json(), sort_keys=True) + "\n" for request in requests)


def requests_from_text(text: str) -> list[TrainingRequest]:
    """The requests of ``requests_to_text``; InputError when a line is none."""
    try:
        return [TrainingRequest.from_json(json.loads(line)) for line in text.splitlines()]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"not a request file: {error}", "draw the requests again") from error


def requests_sha256(requests: Sequence[TrainingRequest]) -> str:
    """SHA-256 of the request file, which the evaluation table prints."""
    return hashlib.sha256(requests_to_text(requests).encode()).hexdigest()


def _look_for(set_name: str, rng: random.Random, kinds: Sequence[str]) -> Look:
    return draw_look(rng, kinds, monochrome=ICON_SETS[set_name].monochrome)


def _references(dataset: IconDataset, target: IconRecord, trained: bool = False) -> list[IconRecord]:
    """The target's meaning in sets of other families, drawn visibly otherwise; ``trained`` leaves train cells only."""
    return [
        record
        for record in dataset.by_meaning[target.meaning]
        if record.family != target.family and record.twins != target.twins and (not trained or record.split == "train")
    ]


def _draw_pair(dataset: IconDataset, rng: random.Random) -> tuple[IconRecord, IconRecord]:
    """A train target, sets equally often, and a train reference for it."""
    names = sorted(dataset.train_by_set)
    for _ in range(1000):
        target = rng.choice(dataset.train_by_set[rng.choice(names)])
        if references := _references(dataset, target, trained=True):
            return target, rng.choice(references)
    raise InputError("no train cell has a reference in another family", "build the dataset from all nine sets")


def _evaluation_targets(dataset: IconDataset, split: str) -> list[IconRecord]:
    pure = split != "unseen"
    return [
        record
        for record in dataset.by_split.get(split, ())
        if _references(dataset, record)
        and (pure or all(other.split == "unseen" for other in dataset.by_meaning[record.meaning]))
    ]


def _request(
    dataset: IconDataset,
    rng: random.Random,
    target: IconRecord,
    reference: IconRecord,
    look: Look,
    count: int,
    planted: int,
    with_words: bool,
) -> TrainingRequest:
    avoided = {target.twins}
    history = _draw_history(dataset.train_by_set.get(target.set, ()), rng, count, avoided)
    strangers = []
    for position in sorted(rng.sample(range(count), planted)):
        stranger = _draw_stranger(dataset, rng, position, target, look)
        history[position] = stranger.id
        strangers.append(stranger)
    words = target.label if with_words else ""
    return TrainingRequest(target.set, look, tuple(history), tuple(strangers), reference.id, words, target.id)


def _draw_history(records: Sequence[IconRecord], rng: random.Random, count: int, avoided: set[int]) -> list[int]:
    """``count`` ids whose twin groups all differ, from each other and from ``avoided``."""
    chosen: list[int] = []
    taken = set(avoided)
    for record in rng.sample(records, min(len(records), 20 * count)):
        if len(chosen) == count:
            break
        if record.twins not in taken:
            taken.add(record.twins)
            chosen.append(record.id)
    if len(chosen) < count:
        raise InputError(f"fewer than {count} different train images in a set", "build the dataset from whole sets")
    return chosen


def _draw_stranger(
    dataset: IconDataset, rng: random.Random, position: int, target: IconRecord, look: Look
) -> PlantedImage:
    """A train image of another set, another meaning and another look, of trained kinds always."""
    others = sorted(name for name in dataset.train_by_set if name != target.set)
    style = rng.choice(others)
    record = rng.choice(dataset.train_by_set[style])
    while record.meaning == target.meaning:
        record = rng.choice(dataset.train_by_set[style])
    strange = _look_for(style, rng, TRAIN_KINDS)
    while strange == look:
        strange = _look_for(style, rng, TRAIN_KINDS)
    return PlantedImage(position, style, strange, record.id)
