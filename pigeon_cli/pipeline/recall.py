"""Which of the drawings that a model knows by heart is meant by words or a picture.

The base model draws references from words alone (DESIGN.md section 2), but what a small one draws so nobody recognises.
Where words name a thing that it was shown in training, or a reference is recognised as one, the drawing of that thing
by the hand that is nearest to the taste takes the reference's place; where no near hand has one, the drawing of another
thing by the taste's own hand, if that should draw the two much alike, or else another hand's drawing as large and in
the colours as that hand should have drawn it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from PIL import Image
from torch import Tensor

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.engine.residency import MEMORY, VAE, Parts
from pigeon_cli.models.colour_transfer import ColourSpread, in_colours
from pigeon_cli.models.memory import Memory
from pigeon_cli.models.outlines import outlines
from pigeon_cli.models.redrawing import Redrawing, redrawn, settled
from pigeon_cli.models.small_pictures import as_image, smoothed_flat
from pigeon_cli.models.worn_look import WornLook
from pigeon_cli.pipeline.asked import Asked
from pigeon_cli.pipeline.decode import to_images
from pigeon_cli.pipeline.looks import WornDrawing, look_of, pixels_of, unread_look
from pigeon_cli.pipeline.settings import Settings
from pigeon_cli.pipeline.stages import Stages
from pigeon_cli.pipeline.taste import read_tastes
from pigeon_cli.pipeline.upright import upright_lines
from pigeon_cli.pipeline.words import split_words

MEMORY_LIST: Final = "memory.txt"
"""What a model folder's memory holds, a thing a line in the order of its weights: the label, a tab, and tags."""
TAG_SHARE: Final = 0.5
"""What a word counts that is a tag of a thing and not in its label."""
SMALL_WORDS: Final = frozenset(
    split_words("a an and at by for from in is my of on or over some that the this to under with")
)
"""Words that name nothing."""
ENOUGH: Final = 0.5
"""Least share of what was asked for that must be found, by the weight of the known words."""
SURE, CLEAR, CLEARER = 0.99, 0.75, 0.15
"""Least agreement of a picture's outlines with those of what it is taken for, by itself, and where it is greater than
that with any other thing by the last. So each of mini's training drawings is told, and three of ten that it never saw,
one of seven of those wrongly; of one in twenty that shows no such thing it is thought so."""
NAMED: Final = 0.2
"""Least agreement where words say what it is: nine of ten drawings that mini never saw have it, and one in five of
another thing."""
LIKELY: Final = 0.4
"""Least probability of a hand for which a reference gives way to what this hand drew."""
NEAR: Final = 0.6
"""Least nearness of another hand's drawing: another finish of the same lines, for a hand that is told with some
certainty. Below it a reference as it was given serves better."""
LEAST_ALIKE: Final = 0.65
"""Least agreement of a liked picture's outlines with those of the drawing that it is taken for: seven of ten have it,
and six of seven of those are that drawing, where they were seen in training."""
ALIKE: Final = 0.42
"""Least likeness of what stands in for a drawing that the history's hand lacks. From about there on people take the one
for the other: the hour of a clock, the cut of a shoe."""


@dataclass(frozen=True)
class Remembered:
    """How one thing is called."""

    label: str
    tags: str = ""

    def line(self) -> str:
        """Its line of the list."""
        return f"{self.label}\t{self.tags}"


def remembered(folder: Path) -> tuple[Remembered, ...]:
    """The list of a model folder; raises :class:`WeightsError` where it cannot be read."""
    path = folder / MEMORY_LIST
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read the list {path}: {error}", "reinstall pigeon") from error
    return tuple(Remembered(label, tags) for label, _, tags in (line.partition("\t") for line in lines))


def named_thing(things: Sequence[Remembered], words: str) -> int | None:
    """The number of the thing that ``words`` ask for, ``None`` where they name none.

    A word weighs the more the fewer things have it; words that no thing has do not count. The best share of the
    asked words wins, and of equals the thing whose label says least else.
    """
    asked = set(split_words(words)) - SMALL_WORDS
    labels = [set(split_words(one.label)) for one in things]
    tags = [set(split_words(one.tags)) - label for one, label in zip(things, labels, strict=True)]
    found = Counter(word for label, tag in zip(labels, tags, strict=True) for word in label | tag)
    weight = {word: math.log(1 + len(things) / count) for word, count in found.items()}
    total = sum(weight.get(word, 0.0) for word in asked)
    if not total:
        return None

    def share(number: int) -> tuple[float, float]:
        named = sum(weight[word] for word in asked & labels[number])
        tagged = sum(weight[word] for word in asked & tags[number])
        return (named + TAG_SHARE * tagged) / total, named / max(1e-9, sum(weight[word] for word in labels[number]))

    best = max(range(len(things)), key=share)
    return best if share(best)[0] >= ENOUGH else None


def lines_of(memory: Memory, pictures: Sequence[Image.Image]) -> Tensor:
    """Outlines [pictures, CELLS] of RGB pictures."""
    return outlines(pixels_of(pictures).to(memory.centre.device))


def seen_thing(memory: Memory, picture: Image.Image, named: int | None) -> int | None:
    """The number of the thing that an RGB picture shows; ``named`` is what the words about it name."""
    agreement = memory.recognise(lines_of(memory, [picture])[0])
    if named is not None and float(agreement[named]) >= NAMED:
        return named
    best, *others = agreement.topk(min(2, len(agreement))).values.tolist()
    clear = best >= CLEAR and all(best - other >= CLEARER for other in others)
    return int(agreement.argmax()) if clear or best >= SURE else None


def likely_hand(hands: Tensor | None) -> int | None:
    """The number of the hand that probabilities [hands] tell; ``None`` where none is likely or nothing is known."""
    if hands is None:
        return None
    certainty, hand = hands.max(-1)
    return int(hand) if float(certainty) >= LIKELY else None


def nearest_drawing(memory: Memory, thing: int, hands: Tensor | None, least: float = -1.0) -> int | None:
    """The number of the drawing of ``thing`` by the hand that ``hands`` tells, probabilities [hands], if it is likely
    and has one, or by the nearest hand; ``None`` where none is as near as ``least``. Where nothing is known of the hand
    the first one, which is the plainest.
    """
    drawings = memory.drawings_of(thing)
    if hands is None or not drawings:
        return drawings[0] if drawings else None
    hand = likely_hand(hands)
    own = None if hand is None else memory.drawing_by(hand, thing)
    if own in drawings:
        return own
    near = memory.nearness(hands).tolist()
    best = max(drawings, key=lambda drawing: near[int(memory.hands[drawing])])
    return best if near[int(memory.hands[best])] >= least else None


def foretold_colours(memory: Memory, thing: int, hands: Tensor | None) -> ColourSpread | None:
    """The colours in which the hand that ``hands`` tells, probabilities [hands], should have drawn ``thing``; ``None``
    where the hand is not likely or they were not foretold."""
    hand = likely_hand(hands)
    return None if hand is None else memory.colours_foretold(thing, hand)


def drawing_alike(memory: Memory, thing: int, hands: Tensor | None) -> int | None:
    """The number of the drawing by the hand that ``hands`` tells, probabilities [hands], that stands in for its drawing
    of ``thing``; ``None`` where the hand is not likely or the drawing not like enough."""
    hand = likely_hand(hands)
    if hand is None:
        return None
    drawing, likeness = memory.substitute(thing, hand)
    return drawing if likeness >= ALIKE else None


@dataclass(frozen=True)
class Found:
    """The number of a drawing that is to take a reference's place."""

    drawing: int
    redrawing: Redrawing | None = None
    """What becomes of it, another hand's drawing, for the history's, which has nothing like it."""
    colours: ColourSpread | None = None
    """Or but the colours that were foretold of the history's hand."""
    by_other_hand: bool = False
    """Whether not even these were known."""

    @property
    def foretold(self) -> bool:
        """Whether another hand's drawing is shown as the history's hand should have drawn it."""
        return self.redrawing is not None or self.colours is not None


def find_drawing(memory: Memory, thing: int, hands: Tensor | None, any_hand: bool) -> Found | None:
    """What is shown of ``thing`` to somebody who likes what the hand draws that ``hands`` tells, probabilities [hands];
    where nothing better is known, another hand's drawing as it is, if ``any_hand`` will do."""
    drawing = nearest_drawing(memory, thing, hands, NEAR)
    if drawing is None:
        drawing = drawing_alike(memory, thing, hands)
    if drawing is not None:
        return Found(drawing)
    hand = likely_hand(hands)
    redrawing = None if hand is None else memory.redrawing(thing, hand)
    if redrawing is not None:
        return Found(*redrawing)
    other = nearest_drawing(memory, thing, hands)
    if other is None:
        return None
    colours = foretold_colours(memory, thing, hands)
    if colours is None and not any_hand:
        return None
    return Found(other, colours=colours, by_other_hand=colours is None)


def picture_of(parts: Parts, memory: Memory, found: Found) -> Image.Image:
    """The RGB picture of a drawing."""
    if found.redrawing is not None:
        sketch = memory.sketch(found.drawing)
        if sketch is None:
            sketch = settled(kept_picture(parts, memory, found.drawing), found.redrawing)
        return redrawn(sketch, found.redrawing)
    picture = kept_picture(parts, memory, found.drawing)
    return picture if found.colours is None else as_image(in_colours(pixels_of([picture])[0], found.colours))


def kept_picture(parts: Parts, memory: Memory, drawing: int) -> Image.Image:
    """The RGB picture of a drawing as the memory has it."""
    kept = memory.picture(drawing)
    if kept is not None:
        return kept
    with parts.use(VAE) as vae:
        rough = to_images(vae, memory.latents([drawing]))[0]
    colours = int(memory.colours[int(memory.hands[drawing])])
    return smoothed_flat(rough, colours) if colours else rough


def plain_drawings(memory: Memory, lines: Tensor) -> Tensor:
    """Scaled latents [pictures, c, h, w] of the drawings that liked pictures are taken for by their outlines
    [pictures, CELLS], zero where they are taken for none."""
    drawings, agreement = memory.alike(lines)
    return memory.latents(drawings.tolist()) * (agreement >= LEAST_ALIKE)[:, None, None, None]


def recall(
    asked: Asked, parts: Parts, things: Sequence[Remembered], settings: Settings, stages: Stages, draws: bool = True
) -> Asked:
    """With a drawing that the model knows by heart for a reference, where it knows what is asked for, and with the
    plain drawings of the history.

    A reference that is to be followed, at dial position 0 alone, stays, as one that shows nothing known does. The
    history's look is read off it if something ``draws`` in it.
    """
    if parts.model.spec.memory is None:
        return asked
    with stages("recall", 1), parts.use(MEMORY) as memory:
        pixels = pixels_of(asked.history)
        lines, degrees = upright_lines(memory, pixels.to(memory.centre.device))
        asked = replace(asked, turned=degrees)
        if parts.model.spec.diffusion.history_plain:
            asked = replace(asked, plain=plain_drawings(memory, lines))
        follows = asked.reference is not None and not any(settings.dials)
        thing = None if follows else _wanted_thing(asked, things, memory)
        return _recalled(asked, parts, things, thing, _Seen(memory, lines, pixels if draws else None))


def _wanted_thing(asked: Asked, things: Sequence[Remembered], memory: Memory) -> int | None:
    named = named_thing(things, asked.words)
    return named if asked.reference is None else seen_thing(memory, asked.reference, named)


@dataclass(frozen=True)
class _Seen:
    """What the memory is asked by: a history's outlines [images, CELLS], and its pictures [images, 3, S, S] where a
    look is to be read off them."""

    memory: Memory
    lines: Tensor
    pixels: Tensor | None


def _recalled(asked: Asked, parts: Parts, things: Sequence[Remembered], thing: int | None, seen: _Seen) -> Asked:
    wish, memory = asked.reference, seen.memory
    if thing is None and (wish is None or seen.pixels is None):
        return asked
    asked = replace(asked, tastes=read_tastes(parts, asked.history))
    hands = None if asked.tastes is None else memory.hand_of(asked.tastes.mean(0), seen.lines)
    found = None
    if thing is not None:
        asked = replace(asked, recognised=things[thing].label)
        found = find_drawing(memory, thing, hands, any_hand=wish is None)
    hand = None if hands is None else int(hands.argmax())
    own = hand is not None and _could_be_by(memory, hand, found)
    picture = wish if found is None else picture_of(parts, memory, found)
    if picture is not None and seen.pixels is not None:
        look = look_of(parts, memory, seen.pixels, seen.lines, hand) if hand is not None and own else None
        asked = replace(asked, worn=_worn(picture, look, seen.pixels, given=found is None))
    if found is None:
        return asked
    return replace(
        asked,
        reference=picture,
        recalled=things[int(memory.things[found.drawing])].label,
        by_own_hand=own,
        foretold=found.foretold,
        by_other_hand=found.by_other_hand and not own,
    )


def _worn(picture: Image.Image, look: WornLook | None, pixels: Tensor, given: bool) -> WornDrawing:
    """``given`` says whether the picture is a reference that stays."""
    if look is None:
        return WornDrawing(picture, unread_look(pixels), framed=True, over=True)
    return WornDrawing(picture, look, framed=given)


def _could_be_by(memory: Memory, hand: int, found: Found | None) -> bool:
    """Whether ``hand`` drew what was found, or it gets the colours that this hand should give it, as a reference gets
    them that stays."""
    return found is None or found.foretold or int(memory.hands[found.drawing]) == hand
