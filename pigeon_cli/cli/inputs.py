"""From the options to checked inputs; usage errors first, files second, and no model anywhere.

What reads images is imported where it is used: ``--help`` need not pay for Pillow.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pigeon_cli.core.errors import InputError, UsageError, WeightsError
from pigeon_cli.report.files import prompt_stem, reference_stem

if TYPE_CHECKING:
    from pigeon_cli.core.records import HistoryImage, Reference
    from pigeon_cli.history.intake import Order

ALPHA: Final = re.compile(r"white|drop|#[0-9a-fA-F]{6}")
STANDARD_INPUT: Final = {Path("-"): False, Path("-0"): True}
"""What ``--history`` takes for a list on standard input, and whether its paths end with NUL."""
LIST_BYTES: Final = 16 * 2**20
"""A longer list of paths on standard input is a mistake."""


@dataclass(frozen=True)
class Sources:
    """What the user points at: exactly one of ``reference`` and ``prompt``."""

    history: tuple[Path, ...]
    reference: Path | None = None
    caption: str | None = None
    prompt: str | None = None

    @property
    def stem(self) -> str:
        """Beginning of the names of the images to write."""
        return reference_stem(self.reference) if self.reference else prompt_stem(self.prompt or "")


@dataclass(frozen=True)
class Inputs:
    """What was read, and what there is to say about it."""

    history: tuple[HistoryImage, ...]
    reference: Reference | None
    prompt: str | None
    warnings: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        """Every file that the run reads."""
        return [image.path for image in self.history] + ([self.reference.path] if self.reference else [])


def choose_sources(
    history: Sequence[Path],
    more: Sequence[Path],
    reference: Path | None,
    caption: str | None,
    prompt: str | None,
    sample: bool,
) -> Sources:
    """Refuses contradictions with :class:`UsageError`; ``sample`` stands for the images in the package."""
    from pigeon_cli.history.words import one_line

    if sample:
        if history or more or reference or prompt is not None or caption is not None:
            raise UsageError("--sample brings its own history and reference", "leave out the other inputs")
        return sample_sources()
    if not history:
        hint = "add --history DIR, or try --sample"
        raise UsageError("there is no history of liked images" + (": files need --history" if more else ""), hint)
    if (reference is None) == (prompt is None):
        raise UsageError("give either a reference image or a prompt", "add one of --ref IMG and --prompt TEXT")
    if caption is not None and reference is None:
        raise UsageError("--caption describes a reference image, and there is none", "use --prompt TEXT alone")
    words = None if prompt is None else one_line(prompt)
    if words == "":
        raise UsageError("the prompt is empty", 'say what you want, as in --prompt "a red fox"')
    return Sources((*history, *more), reference, caption, words)


def sample_sources() -> Sources:
    """The history and reference in the package; raises :class:`InputError` where they are missing."""
    from importlib.resources import files

    folder = Path(str(files("pigeon_cli").joinpath("assets", "samples")))
    if not (folder / "history").is_dir() or not (folder / "reference.png").is_file():
        raise InputError(f"the samples are missing from this installation ({folder})", "install pigeon-cli again")
    return Sources((folder / "history",), folder / "reference.png")


def read_inputs(
    sources: Sources, size: int, order: Order, recursive: bool, null_separated: bool, use_name: bool = False
) -> Inputs:
    """Reads and checks every input file; raises :class:`InputError` and :class:`UsageError`.

    ``use_name`` takes words about the reference from its file's name where there are no others.
    """
    from pigeon_cli.core.records import HistoryStatus
    from pigeon_cli.history.intake import gather
    from pigeon_cli.history.words import read_reference

    if null_separated and not STANDARD_INPUT.keys() & set(sources.history):
        raise UsageError("-0 is about a list on standard input", "add --history -")
    reference = read_reference(sources.reference, sources.caption, use_name) if sources.reference else None
    paths: list[Path] = []
    for path in sources.history:
        listed = path in STANDARD_INPUT
        paths.extend(_read_list(null_separated or STANDARD_INPUT[path]) if listed else [path])
    history = gather(paths, size, order, recursive, reference.sha256 if reference else None)
    warnings = tuple(
        f"left out of the history: {image.path} ({image.reason})"
        for image in history
        if image.status in (HistoryStatus.SKIPPED, HistoryStatus.REFERENCE)
    )
    return Inputs(tuple(history), reference, sources.prompt, warnings)


def parse_reference_mask(text: str) -> float | None:
    """``None`` for ``auto``, else a share from 0 to 1; raises :class:`UsageError`."""
    if text == "auto":
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--ref-mask {text!r} is neither auto nor a number from 0 to 1", "try --ref-mask 0.5")
    # -0.0 is 0, but would name another seed stream.
    return abs(share)


def check_emotion(text: str | None) -> str | None:
    """The emotion on one line; raises :class:`UsageError` for an empty one."""
    from pigeon_cli.history.words import one_line

    if text is not None and not (text := one_line(text)):
        raise UsageError("the emotion is empty", "name one, as in --emotion joy, or leave --emotion out")
    return text


def check_model(
    name: str, history_size: int, scenario: str | None = None, aspect: str | None = None, size: int | None = None
) -> bool:
    """Whether the model reads the words in a file's name; published ones do, who know every word.

    Raises :class:`UsageError` for more images than it was made for and for a size that it cannot draw, and
    :class:`WeightsError` without a model, or where it may not be read.
    """
    from pigeon_cli.pipeline.sizes import check_history_size, drawing_size
    from pigeon_cli.weights.store import find_model

    try:
        model = find_model(name)
    except PermissionError as error:
        raise WeightsError(f"cannot use {error.filename}: {error.strerror}", "check its permissions") from error
    check_history_size(model.spec, history_size)
    if aspect is not None or size is not None:
        drawing_size(model.spec.diffusion, scenario or model.wordings[0], aspect, size)
    return model.mapped


def parse_memory(text: str | None) -> int | None:
    """Bytes of ``--max-memory``, ``None`` where it was not said; raises :class:`UsageError`."""
    from pigeon_cli.engine.plan import parse_size

    return None if text is None else parse_size(text)


def check_alpha(text: str) -> str:
    """The alpha setting itself; raises :class:`UsageError` for any but ``white``, ``drop`` and a colour."""
    if not ALPHA.fullmatch(text):
        raise UsageError(f"--alpha {text!r} is neither white, drop nor a colour", "try --alpha '#ffcc00'")
    return text


def _read_list(null_separated: bool) -> list[Path]:
    from pigeon_cli.history.intake import parse_list

    if sys.stdin is None:  # closed by the caller, as in ``<&-``
        raise InputError("there is no standard input to read a list from", "pipe the paths of liked images into it")
    data = sys.stdin.buffer.read(LIST_BYTES + 1)
    if len(data) > LIST_BYTES:
        raise InputError(f"the list on standard input is longer than {LIST_BYTES // 2**20} MiB", "give folders instead")
    return parse_list(data, null_separated)
