"""Stage ``memory``: plain drawings of every train meaning by every hand, and how to find them."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import MemoryConfig, TasteConfig
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.colour_transfer import ColourSpread, spread_of
from pigeon_cli.models.diffusion import build_vae, decode_latents, encode_latents
from pigeon_cli.models.memory import Memory
from pigeon_cli.models.redrawing import PALETTE, Redrawing
from pigeon_cli.models.small_pictures import pack_picture
from pigeon_cli.models.taste import TasteReader
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.pipeline.recall import ALIKE, MEMORY_LIST, Remembered
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.alike import outlines_of
from pigeon_cli.training.data.dataset import IconRecord, grouped
from pigeon_cli.training.data.looks import PLAIN, apply_look, draw_look
from pigeon_cli.training.data.sets import HANDS, ICON_SETS
from pigeon_cli.training.finishes import worth_making
from pigeon_cli.training.foretelling import Foreteller, ForetellingNetwork, drawn_table
from pigeon_cli.training.frozen_reader import frozen, tastes_of
from pigeon_cli.training.pixel_metric import pixel_metric
from pigeon_cli.training.placed_drawings import PlacedDrawings
from pigeon_cli.training.quantized_drawings import LEVELS, PATCH_SIDE, quantized
from pigeon_cli.training.redrawings import Redrawn, redrawings
from pigeon_cli.training.substitutes import DrawnThings, substitutes
from pigeon_cli.weights.checkpoint import save_part
from pigeon_cli.weights.spec_file import change_spec
from pigeon_cli.weights.store import ModelFolder

CLEAREST: Final = (
    "twemoji", "fluent-emoji-flat", "noto", "emojione", "fluent-emoji", "noto-v1", "fxemoji", "emojione-monotone",
    "fluent-emoji-high-contrast",
)  # fmt: skip
"""The order of a thing's drawings by their icon sets, the plainest first: flat and in colours."""
COLOURS: Final = {
    "twemoji": 8, "emojione": 8, "fluent-emoji-flat": 6, "fluent-emoji-high-contrast": 4, "emojione-monotone": 4
}  # fmt: skip
"""Of pictures that are kept, by icon sets that hardly shade: those of borders are among them. Finishes are kept as
pictures, and what stands in for others, which is drawn by itself as they are."""
FLAT_HANDS, ROUGH_COLOURS = ("twemoji", "fluent-emoji-flat", "emojione"), 10
"""Icon sets that hardly shade, and in how many colours their drawings are brought that the latents roughened."""
SKETCH_BYTES: Final = 520_000
"""What the pictures may take of drawings that are redrawn for others, the most used first; latents tell the rest."""
INK_SHARE: Final = 0.5
"""What the agreement of lines counts where colours would have to be told from ink."""
KEY_WIDTH: Final = 64
"""With 24 numbers half as many drawings that were never seen are told from all others, with 96 a tenth more."""
KEY_FLOOR: Final = 0.3
"""Of the largest singular value, added to all: directions in which outlines hardly differ count less."""
HISTORIES, SHOWN = 150, 5
"""Of each set, from which its tastes are told, and their pictures."""
FIT_STEPS, FIT_DECAY = 60, 1e-3
PICTURES: Final = 32
"""Of one batch."""

Finish: TypeAlias = Callable[[Tensor, int], Tensor]
"""Makes of plain pictures [B, 3, S, S] in 0..1 what another hand, by its number, makes of the same lines; the same
shape."""


@dataclass(frozen=True)
class Drawing:
    """A drawing that is kept: of the thing of ``record`` by ``hand``, which is the record's own or made from it."""

    record: IconRecord
    hand: int

    @property
    def is_made(self) -> bool:
        """Whether the hand lacks this drawing among the train records."""
        return HANDS[self.hand] != self.record.set


def build_memory(
    folder: ModelFolder,
    batches: IconBatches,
    tokenizer: VisualTokenizer,
    reader: TasteReader,
    finishes: Callable[[Tensor], Finish],
    network: ForetellingNetwork | None = None,
) -> int:
    """Write ``memory.safetensors``, ``memory.txt``, and what ``config.json`` says of them; returns how many drawings.

    Only train records are read. ``finishes`` makes of their :func:`kinship` what makes the finishes that sets lack;
    without ``network`` nothing is foretold.
    """
    seen = batches.train
    things = sorted({record.meaning for record in seen})
    lines = outlines_of(batches.dataset, seen)
    kin = kinship(seen, lines)
    drawings = in_order([*(Drawing(record, HANDS.index(record.set)) for record in seen), *missing_finishes(seen, kin)])
    # diffusers does not say what its classes can do.
    vae = frozen(cast(Any, build_vae(folder.spec.diffusion)), folder, "vae", batches.device)
    latents, pictures = _kept(vae, batches, drawings, finishes(kin))
    places, of_records = _numbered(seen, drawings, things)
    lacking = _others(places, len(things))
    drawn = DrawnThings(batches, seen, lines, HANDS)
    instead = substitutes(drawn, kin, lacking, ALIKE)
    pictures |= _stand_ins(batches, drawings, places, instead[0])
    metric = pixel_metric(vae, latents, PATCH_SIDE)
    told = _Foretold(places[:0], [], {})
    if network is not None:
        unaided = lacking & _others(instead[0][:, :2], len(things))
        foretell = Foreteller(network, drawn_table(seen, drawn, kin))
        told = _foretold(vae, PlacedDrawings(batches, foretell.table, kin), foretell, latents[of_records], unaided)
    sketches = _sketches(batches, of_records, told.redrawn.values())
    books, packed = quantized(latents, [not drawing.is_made for drawing in drawings], metric)
    config = MemoryConfig(
        len(places), LEVELS, latents.shape[1], latents.shape[2], PATCH_SIDE, len(packed), len(things), len(seen),
        KEY_WIDTH, len(HANDS), cast(TasteConfig, folder.spec.taste).width, len(instead[0]), len(told.colours),
        len(pictures), sum(map(len, pictures.values())), len(told.redrawn), len(sketches),
        sum(map(len, sketches.values())),
    )  # fmt: skip
    memory = Memory(config)
    memory.packed.copy_(torch.frombuffer(bytearray(packed), dtype=torch.uint8))
    memory.books.copy_(books)
    memory.things.copy_(places[:, 0])
    memory.hands.copy_(places[:, 1])
    memory.key_drawings.copy_(of_records)
    _learn_keys(memory, lines)
    memory.kinship.copy_(kin)
    memory.learn_substitutes(*instead)
    memory.learn_foretold(told.places, told.colours)
    memory.learn_pictures(pictures)
    memory.learn_redrawn(*told.entries(of_records))
    memory.learn_sketches(sketches)
    memory.colours[[HANDS.index(name) for name in FLAT_HANDS]] = ROUGH_COLOURS
    _learn_hands(memory, batches, tokenizer, reader)
    save_part(folder.part("memory"), memory.state_dict())
    _write_list(folder, things, grouped(seen, "meaning"))
    change_spec(folder.path / "config.json", lambda spec: dataclasses.replace(spec, memory=config))
    return len(places)


def missing_finishes(records: Sequence[IconRecord], kin: Tensor) -> list[Drawing]:
    """Of every thing the drawings that hands lack among ``records`` and a sibling has, each from the nearest one."""
    made = []
    for members in grouped(records, "meaning").values():
        owned = {HANDS.index(record.set): record for record in members}
        for hand in range(len(HANDS)):
            sources = [source for source in owned if worth_making(hand, source, kin)]
            if hand not in owned and sources:
                made.append(Drawing(owned[max(sources, key=lambda source: float(kin[hand, source]))], hand))
    return made


def in_order(drawings: Iterable[Drawing]) -> list[Drawing]:
    """By hands, the plainest first, and by groups within them, so that like is by like."""

    def place(drawing: Drawing) -> tuple[int, str, str, str, str]:
        record = drawing.record
        return CLEAREST.index(HANDS[drawing.hand]), record.group, record.subgroup, record.label, record.meaning

    return sorted(drawings, key=place)


def kinship(records: Sequence[IconRecord], lines: Tensor) -> Tensor:
    """Mean agreement [hands, hands] of outlines [records, N] over the meanings that two sets share; of a hand that has
    colours (rows) with drawings in ink alone (columns) a part of it.
    """
    total, count = torch.zeros(2, len(HANDS), len(HANDS))
    rows: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        rows.setdefault(record.meaning, []).append(row)
    for members in rows.values():
        for one, other in itertools.permutations(members, 2):
            place = HANDS.index(records[one].set), HANDS.index(records[other].set)
            total[place] += float(lines[one] @ lines[other])
            count[place] += 1
    ink = torch.tensor([ICON_SETS[name].monochrome for name in HANDS])
    shares = torch.where(~ink.unsqueeze(1) & ink, INK_SHARE, 1.0)
    return (total / count.clamp_min(1) * shares).fill_diagonal_(1.0)


def _numbered(
    records: Sequence[IconRecord], drawings: Sequence[Drawing], things: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Things and hands of the drawings, int64 [drawings, 2], and the numbers of the records' own, int64 [records]."""
    numbers = {thing: number for number, thing in enumerate(things)}
    places = torch.tensor([(numbers[drawing.record.meaning], drawing.hand) for drawing in drawings])
    rows = {drawing.record.id: row for row, drawing in enumerate(drawings) if not drawing.is_made}
    return places, torch.tensor([rows[record.id] for record in records])


def _others(places: Tensor, things: int) -> Tensor:
    """Bool [things, hands]: all places but these, int64 [N, 2] of things and hands."""
    others = torch.ones(things, len(HANDS), dtype=torch.bool)
    others[tuple(places.T)] = False
    return others


@dataclass(frozen=True)
class _Foretold:
    """Of what hands lack: ``places``, int64 [N, 2] of things and hands, and their colours; and by others what becomes
    of another hand's drawing."""

    places: Tensor
    colours: list[ColourSpread]
    redrawn: Mapping[tuple[int, int], Redrawn]

    def entries(self, of_records: Tensor) -> tuple[Tensor, list[Redrawing]]:
        """What is redrawn, as :meth:`Memory.learn_redrawn` takes it; ``of_records`` [records]: their drawings."""
        rows = [[*place, int(of_records[each.row])] for place, each in self.redrawn.items()]
        return torch.tensor(rows).view(-1, 3), [each.redrawing for each in self.redrawn.values()]


@torch.no_grad()
def _foretold(vae: Any, placed: PlacedDrawings, foretell: Foreteller, latents: Tensor, lacking: Tensor) -> _Foretold:
    """What is foretold from the train drawings, their scaled ``latents`` [records, c, h, w], where a drawing is
    ``lacking``, bool [things, hands]: the colours alone where nothing can be redrawn."""
    redrawn = redrawings(placed, [(thing, hand) for thing, hand in lacking.nonzero().tolist()])
    rest = torch.tensor([place for place in lacking.nonzero().tolist() if tuple(place) not in redrawn]).view(-1, 2)
    known = latents.to(next(vae.parameters()).device)
    found = []
    for some in rest.split(PICTURES):
        pictures = decode_latents(vae, foretell(known, some)).permute(0, 3, 1, 2).float() / 255
        found += [spread_of(picture) for picture in pictures]
    told = torch.tensor([spread is not None for spread in found], dtype=torch.bool)
    return _Foretold(rest[told], [spread for spread in found if spread is not None], redrawn)


@torch.no_grad()
def _kept(
    vae: Any, batches: IconBatches, drawings: Sequence[Drawing], finish: Finish
) -> tuple[Tensor, dict[int, bytes]]:
    """Scaled latents float32 [drawings, c, h, w] on the CPU, and by their numbers the pictures of the finishes, whose
    latents are those of blank paper; finishes are made a hand at a time."""
    found: dict[int, Tensor] = {}
    files: dict[int, bytes] = {}
    groups: dict[int | None, list[int]] = {}
    for number, drawing in enumerate(drawings):
        groups.setdefault(drawing.hand if drawing.is_made else None, []).append(number)
    for hand, numbers in groups.items():
        for some, pictures in _plain_pictures(batches, drawings, numbers):
            if hand is not None:
                files |= _packed(drawings, some, finish(pictures, hand))
                pictures = torch.ones_like(pictures)
            found.update(zip(some, encode_latents(vae, pictures).cpu(), strict=True))
    return torch.stack([found[number] for number in range(len(drawings))]), files


def _stand_ins(batches: IconBatches, drawings: Sequence[Drawing], places: Tensor, entries: Tensor) -> dict[int, bytes]:
    """By their numbers the pictures of the drawings that stand in for others, by ``places`` [drawings, 2], things and
    hands, and the ``entries`` of :func:`pigeon_cli.training.substitutes.substitutes`."""
    numbers = {(thing, hand): number for number, (thing, hand) in enumerate(places.tolist())}
    chosen = sorted({numbers[other, hand] for _, hand, other in entries.tolist()})
    files: dict[int, bytes] = {}
    for some, pictures in _plain_pictures(batches, drawings, chosen):
        files |= _packed(drawings, some, pictures)
    return files


def _sketches(batches: IconBatches, of_records: Tensor, redrawn: Iterable[Redrawn]) -> dict[int, bytes]:
    """By the numbers of their drawings, ``of_records`` [records], pictures of those train drawings that are redrawn
    most often, up to :data:`SKETCH_BYTES`."""
    files: dict[int, bytes] = {}
    size = 0
    for row, _ in Counter(each.row for each in redrawn).most_common():
        file = pack_picture(apply_look(PLAIN, batches.rgba([batches.train[row]]))[0], PALETTE)
        size += len(file)
        if size > SKETCH_BYTES:
            break
        files[int(of_records[row])] = file
    return files


def _packed(drawings: Sequence[Drawing], numbers: Sequence[int], pictures: Tensor) -> dict[int, bytes]:
    """The files of plain pictures [B, 3, S, S] in 0..1 of the drawings ``numbers``, by these."""
    hands = [HANDS[drawings[number].hand] for number in numbers]
    packed = [pack_picture(picture, COLOURS.get(hand)) for picture, hand in zip(pictures, hands, strict=True)]
    return dict(zip(numbers, packed, strict=True))


def _plain_pictures(
    batches: IconBatches, drawings: Sequence[Drawing], numbers: Sequence[int]
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """A few of ``numbers`` at a time, and the plain pictures [B, 3, S, S] in 0..1 of those drawings' records."""
    for start in range(0, len(numbers), PICTURES):
        some = numbers[start : start + PICTURES]
        yield some, apply_look(PLAIN, batches.rgba([drawings[number].record for number in some]))


def _learn_keys(memory: Memory, lines: Tensor) -> None:
    """Principal directions of outlines [keys, CELLS], and all of them in those."""
    memory.centre.copy_(lines.mean(0))
    _, values, directions = torch.linalg.svd(lines - memory.centre, full_matrices=False)
    width = min(memory.config.key_width, len(values))
    scales = values[:width] / values[0] + KEY_FLOOR
    with torch.no_grad():
        memory.projection.weight.zero_()
        memory.projection.weight[:width] = directions[:width] / scales.unsqueeze(1)
    memory.learn_keys(lines)


def _learn_hands(memory: Memory, batches: IconBatches, tokenizer: VisualTokenizer, reader: TasteReader) -> None:
    """Logistic regression of the set on the mean taste of one to all of a history's pictures."""
    rng = random.Random(stream_seed(0, "memory, hands"))
    tastes, hands = [], []
    for name, records in batches.dataset.train_by_set.items():
        for _ in range(HISTORIES):
            look = draw_look(rng, monochrome=ICON_SETS[name].monochrome)
            images = apply_look(look, batches.rgba(rng.choices(records, k=SHOWN)))
            vectors = tastes_of(images, tokenizer, reader)
            tastes += [vectors[:count].mean(0) for count in (1, SHOWN - 2, SHOWN)]
            hands += [HANDS.index(name)] * 3
    told, wanted = torch.stack(tastes), torch.tensor(hands)
    fit = memory.tells_hand
    nn.init.zeros_(fit.weight)
    nn.init.zeros_(fit.bias)
    optimizer = torch.optim.LBFGS(fit.parameters(), max_iter=FIT_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(fit(told), wanted) + FIT_DECAY * fit.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def _write_list(folder: ModelFolder, things: Sequence[str], by_meaning: Mapping[str, Sequence[IconRecord]]) -> None:
    named = [min(by_meaning[thing], key=lambda record: CLEAREST.index(record.set)) for thing in things]
    lines = [Remembered(record.label, " ".join(record.tags)).line() for record in named]
    target = folder.path / MEMORY_LIST
    temporary = target.with_suffix(".part")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(temporary, target)
