"""The frozen records that flow through everything: request in, report out (DESIGN.md section 4)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

REPORT_VERSION: Final = 1
"""Raised when a reader of ``report.json`` would have to change; the schema file carries it in its name."""
MASKS_VERSION: Final = 1
"""The same for ``masks.json``."""


class HistoryStatus(StrEnum):
    """What became of one file of the history."""

    USED = "used"
    SKIPPED = "skipped"
    REFERENCE = "same-as-reference"
    OLDER = "beyond-history-size"


@dataclass(frozen=True)
class HistoryImage:
    """One file of the history, in the order of the prompt; ``sha256`` is that of the file's bytes.

    Hash and size are ``None`` where the file was not, or could not be, read.
    """

    path: Path
    status: HistoryStatus = HistoryStatus.USED
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    reason: str = ""
    title: str = ""
    """What the image is called, where the model's wording has a place for it."""


@dataclass(frozen=True)
class Reference:
    """What the user wants now: an image and words about it (``""`` for none)."""

    path: Path
    sha256: str
    words: str = ""
    words_from: str = "none"
    """``caption`` (the option), the name of a sidecar file, ``file name``, or ``none``."""


@dataclass(frozen=True)
class GenerateRequest:
    """One call of ``pigeon generate``. Exactly one of ``reference`` and ``prompt`` is given.

    ``None`` in a setting stands for the model's own default; in ``reference_mask`` it stands for ``auto``.
    """

    history: tuple[HistoryImage, ...]
    reference: Reference | None = None
    prompt: str | None = None
    count: int = 4
    seed: int = 0
    reference_mask: float | None = None
    history_mask: float | None = None
    mask: str | None = None
    model: str = "mini"
    device: str = "auto"
    alpha: str = "white"
    steps: int | None = None
    guidance: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    emotion: str | None = None
    alignment: str | None = None
    """Folder of an alignment in place of the model's own."""
    title: str | None = None
    scenario: str | None = None
    aspect: str | None = None
    size: int | None = None
    max_memory: int | None = None
    """Bytes."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantize: Literal["none", "int8", "nf4"] | None = None

    @property
    def words(self) -> str:
        """What is said about the wish; ``""`` where nothing is."""
        return self.reference.words if self.reference else self.prompt or ""

    @property
    def used_history(self) -> tuple[HistoryImage, ...]:
        """The images that reach the prompt, oldest first."""
        return tuple(image for image in self.history if image.status is HistoryStatus.USED)

    def settings(self) -> dict[str, Any]:
        """Every setting by name, without the inputs; the pipeline fills in what is ``None``."""
        inputs = {"history", "reference", "prompt"}
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in inputs}


@dataclass(frozen=True)
class Framing:
    """What was done to a reference, so that it stands on its paper as the liked images do."""

    scale: float = 1.0
    """What its sides were multiplied by."""
    degrees: int = 0
    """By how much it was turned clockwise."""


AS_IT_WAS: Final = Framing()
"""Of a reference that nothing was done to."""


@dataclass(frozen=True)
class ReadLook:
    """What a look does to plain drawings, as it was read off a history whose plain drawings are known."""

    colours: str
    """Their map: ``unchanged``, ``affine`` (tint or turn of the colour wheel), ``scale`` (by brightness), ``steps``."""
    degrees: int
    """Clockwise."""
    scale: float
    cells: int | None
    """Large pixels across."""
    softness: float | None
    """Deviation of the blur, as a share of the side."""
    shadow: bool
    sheet: bool
    """Whether there is paper of another colour than white behind."""
    error: float
    """Of what it makes of the history's plain drawings, as a share of what is drawn on the sheet."""


@dataclass(frozen=True)
class TokenMask:
    """Which tokens of one image the mask kept; indices into the image's own token sequence."""

    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    scores: tuple[float, ...] = ()
    """One per token, higher is kept first; empty when the mask is off."""
    codes: tuple[int, ...] = ()
    patches: tuple[int, ...] = ()
    """Row-major patch of each token, as the visual tokenizer's selector kept them; -1: a style token of the picture."""

    @property
    def placed(self) -> int:
        """How many tokens stand for a patch."""
        return sum(patch >= 0 for patch in self.patches) if self.patches else len(self.codes)


@dataclass(frozen=True)
class ScoreParts:
    """Agreement with each input; ``None`` where that input was not given."""

    history: float | None = None
    reference: float | None = None
    words: float | None = None


@dataclass(frozen=True)
class Candidate:
    """One image that was tried: at which dial position, how it scored, and why it won or lost."""

    dial: float
    """Share of the reference's tokens that were hidden (alpha_r)."""
    sample: int
    """Number of the seed stream at this dial position, from 0."""
    codes: tuple[int, ...]
    kept: int
    """Reference tokens that the language model saw."""
    dropped: int
    prescore: float | None = None
    prescore_parts: ScoreParts | None = None
    score: float | None = None
    score_parts: ScoreParts | None = None
    rank: int | None = None
    """1 is best; ``None`` for a candidate that was not written."""
    chosen: bool = False
    reason: str = ""
    reference_tokens: TokenMask | None = None


@dataclass(frozen=True)
class StageTiming:
    """Wall-clock seconds of one stage."""

    name: str
    seconds: float


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights by name and content; a hash that would take minutes is ``None`` where nobody knows it."""

    name: str
    sha256: str | None
    known_from: str = "reading"
    """Where the hash is from: ``reading`` it now, the ``download`` that checked it, or ``nothing``."""


@dataclass(frozen=True)
class ModelRecord:
    """The model that drew, down to the bytes of its weights."""

    name: str
    weights: tuple[WeightsFile, ...] = ()


@dataclass(frozen=True)
class DeviceRecord:
    """Where it ran and why there."""

    name: str
    reason: str = ""
    dtype: str = ""
    threads: int | None = None


@dataclass(frozen=True)
class OutputImage:
    """One written file; ``file`` is a name beside the report, ``candidate`` an index into the candidates."""

    rank: int
    file: str
    sha256: str
    candidate: int | None = None


@dataclass(frozen=True)
class RunReport:
    """Everything ``report.json`` says; the command line adds ``outputs`` and its own stages."""

    model: ModelRecord
    device: DeviceRecord
    settings: Mapping[str, Any]
    history: tuple[HistoryImage, ...]
    reference: Reference | None
    prompt: str | None
    candidates: tuple[Candidate, ...]
    recognised: str | None = None
    """What the thing is called, of those the model knows by heart, that was asked for."""
    recalled: str | None = None
    """What the thing is called whose drawing, known by heart, took the place of the reference or of one from words: the
    same, or one that the history's hand draws much like it."""
    reference_framing: Framing = AS_IT_WAS
    look: ReadLook | None = None
    """In which the recalled drawing lies over what the image generator drew of it, as far as the reference is seen;
    ``None`` where it does not."""
    history_tokens: tuple[TokenMask, ...] = ()
    """One per used history image, in their order; the same for every candidate."""
    outputs: tuple[OutputImage, ...] = ()
    stages: tuple[StageTiming, ...] = ()
    peak_memory_bytes: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    plan: Mapping[str, Any] | None = None
    """What was loaded when, and what it should take; ``None`` where the model stayed in memory as a whole."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types in the order of ``report-v1.schema.json``."""
        return {"version": REPORT_VERSION, **plain(self)}


@dataclass(frozen=True)
class InspectedImage:
    """One image whose tokens were looked at; name and hash are ``None`` for a reference that is no file: recalled, or
    imagined from words."""

    role: str
    """``history`` or ``reference``."""
    name: str | None
    """The file's name without its folder."""
    sha256: str | None
    mask: TokenMask
    overlay: str = ""
    """The picture beside ``masks.json``; the command line names it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the number of tokens, then the mask's fields beside the image's own."""
        own = {"role": self.role, "name": self.name, "sha256": self.sha256, "overlay": self.overlay}
        return {**own, "tokens": len(self.mask.codes), **plain(self.mask)}


@dataclass(frozen=True)
class MaskReport:
    """Everything ``masks.json`` says; nothing in it depends on when or how fast it was made."""

    model: ModelRecord
    device: DeviceRecord
    settings: Mapping[str, Any]
    """Those that decide a mask, by the names of :class:`GenerateRequest`."""
    history: tuple[HistoryImage, ...]
    reference: Reference | None
    prompt: str | None
    grid: int
    """Patches on a side of an image, so that patch p lies in row ``p // grid`` and column ``p % grid``."""
    images: tuple[InspectedImage, ...]
    """The used history in its order, then the reference."""
    recognised: str | None = None
    recalled: str | None = None
    """As those of a :class:`RunReport`."""
    reference_framing: Framing = AS_IT_WAS
    sheet: str = ""
    """The contact sheet beside ``masks.json``; the command line names it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types in the order of ``masks-v1.schema.json``."""
        return {"version": MASKS_VERSION, **plain(self), "images": [image.to_dict() for image in self.images]}


def plain(value: Any) -> Any:
    """Records, tuples, mappings and paths as the types that ``json`` writes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return os.fspath(value) if isinstance(value, Path) else value
