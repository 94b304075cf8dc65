"""``pigeon align pairs``: candidates over the dial, scored, the best and the worst of each request kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import OutputError, UsageError
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.engine.residency import TOKENIZER, Parts
from pigeon_cli.training.alignments import check_alignable
from pigeon_cli.training.candidates import CandidateSettings, CandidateSource
from pigeon_cli.training.pairs import NEAR_TIES, PreferencePair, begin_pairs, choose_pair
from pigeon_cli.training.processes import Processes
from pigeon_cli.training.request_source import open_requests
from pigeon_cli.training.stages import text_processor
from pigeon_cli.training.taste_requests import RequestSource
from pigeon_cli.weights.alignment_folder import with_alignment
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.store import ALIGNED_PARTS, ModelFolder, find_folder

REQUESTS: Final = 1500
"""Of the icon dataset, whose requests never end (RECIPE.md point 9)."""
MINI_DIALS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PAPER_DIALS: Final = tuple(step / 10 for step in range(11))
AT_ONCE: Final = {"cpu": 4}
"""Requests that are drawn together: more do not fit a CPU's caches, and take longer each."""
AT_ONCE_ELSEWHERE: Final = 32
SAY_EVERY: Final = 20.0
"""Seconds between notes."""


@dataclass(frozen=True)
class PairOptions:
    """What the command line passes on; ``None`` takes the model's default."""

    data: Path
    model: str
    out: Path
    alignment: Path | None = None
    score: str | None = None
    dials: tuple[float, ...] | None = None
    requests: int | None = None
    seed: int = 0
    device: str = "auto"
    split: str = "windows"
    """How people's own data is split: by windows, or users kept apart."""


def make_pairs(options: PairOptions, say: Callable[[str], None]) -> dict[str, float]:
    """Append pairs to ``options.out`` until every request has had its turn; returns what there is to count."""
    device = choose_device(options.device)
    if Processes(device).count > 1:
        raise UsageError("pairs are made by one process", "run align pairs without accelerate launch")
    check_alignable(options.model)
    folder = with_alignment(find_folder(options.model), options.alignment)
    source = open_requests(options.data, device, options.seed, folder.spec, options.split, say)
    settings = settings_of(options, folder.spec)
    if settings.score == "answer" and not source.has_answers:
        raise UsageError(f"{options.data} holds no right answers", "use --score both or --score history")
    wanted = options.requests or REQUESTS
    total = wanted if source.count is None else min(wanted, source.count)
    at_once = AT_ONCE.get(device.device.type, AT_ONCE_ELSEWHERE)
    last = begin_pairs(options.out, recorded(settings, folder, source, at_once))
    say(
        f"pairs: {device.reason}, {torch.get_num_threads()} threads; {total} requests at dial positions "
        f"{', '.join(f'{dial:g}' for dial in settings.dials)}, scored by {settings.score}; "
        f"pairs that differ by less than {NEAR_TIES[settings.score]:g} are skipped"
    )
    if last >= 0:
        say(f"pairs: {options.out} goes on after request {last}")
    run = _Run(source, CandidateSource(Parts(folder, device), text_processor(folder), settings), options.out, say)
    run.carry_out(last, total, at_once)
    return counted(options.out, total)


def settings_of(options: PairOptions, spec: ModelSpec) -> CandidateSettings:
    """The options with the model's defaults: all eleven positions and the history's score are the paper's."""
    is_mini = spec.name == "mini"
    score = options.score or ("both" if is_mini else "history")
    if score not in NEAR_TIES:
        raise UsageError(f"no score is called {score!r}", f"use one of: {', '.join(NEAR_TIES)}")
    dials = options.dials or (MINI_DIALS if is_mini else PAPER_DIALS)
    if len(dials) < 2:
        raise UsageError("one candidate makes no pair", "give --dials at least two positions, as in --dials 0,0.5")
    return CandidateSettings(dials, score, options.seed)


def recorded(settings: CandidateSettings, folder: ModelFolder, source: RequestSource, at_once: int) -> dict[str, Any]:
    """Everything that decides the lines of a pairs file."""
    parts = ("language", "tokenizer", "decoder", "scorer", *ALIGNED_PARTS)
    return {
        "version": 1,
        "model": folder.spec.name,
        "weights": {part: sha256_of(folder.part(part)) for part in parts},
        "data_sha256": source.sha256,
        "dials": list(settings.dials),
        "score": settings.score,
        "near_tie": NEAR_TIES[settings.score],
        "seed": settings.seed,
        "mask": folder.spec.default_mask,
        "history_mask": folder.spec.history_mask,
        "requests_at_once": at_once,
    }


def counted(path: Path, requests: int) -> dict[str, float]:
    """Pairs in the file, requests that were a near-tie, and the mean difference of the scores."""
    pairs = [PreferencePair.from_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    margins = [pair.chosen.score - pair.rejected.score for pair in pairs if pair.request < requests]
    mean = sum(margins) / len(margins) if margins else 0.0
    return {"pairs": len(margins), "requests": requests, "near_ties": requests - len(margins), "mean_margin": mean}


@dataclass
class _Run:
    source: RequestSource
    candidates: CandidateSource
    out: Path
    say: Callable[[str], None]

    def carry_out(self, last: int, total: int, at_once: int) -> None:
        """Requests after ``last``. They are drawn in the same groups in every run, so that no sum is rounded
        otherwise in a run that was interrupted.
        """
        begun = told = time.monotonic()
        first = (last + 1) // at_once * at_once
        for start in range(first, total, at_once):
            most = start + at_once if self.source.count is None else min(self.source.count, start + at_once)
            self._append([pair for pair in self._pairs(range(start, most)) if last < pair.request < total])
            now = time.monotonic()
            if now - told > SAY_EVERY:
                done, told = start + at_once, now
                minutes = (now - begun) / (done - first) * (total - done) / 60
                self.say(f"pairs {done}/{total} · {minutes:.1f} min left")

    def _pairs(self, numbers: Sequence[int]) -> list[PreferencePair]:
        with self.candidates.parts.use(TOKENIZER) as tokenizer:
            requests = self.source.read(tokenizer, numbers)
        pairs = []
        for request, (history_kept, scored) in zip(requests, self.candidates.candidates(requests), strict=True):
            chosen = choose_pair(scored, self.candidates.settings.score)
            if chosen is not None:
                pairs.append(
                    PreferencePair(
                        request=request.number,
                        history=tuple(image.codes for image in request.history),
                        history_kept=history_kept,
                        planted=request.planted,
                        reference=request.reference.codes,
                        words=request.words,
                        chosen=chosen[0],
                        rejected=chosen[1],
                        scores=tuple((one.dial, round(one.score, 5)) for one in scored),
                    )
                )
        return pairs

    def _append(self, pairs: Sequence[PreferencePair]) -> None:
        try:
            with self.out.open("a", encoding="utf-8") as stream:
                stream.write("".join(pair.to_json() + "\n" for pair in pairs))
        except OSError as error:
            hint = "free space, then run the same command again: it goes on"
            raise OutputError(f"cannot write {self.out}: {error.strerror}", hint) from error


def parse_dials(text: str) -> tuple[float, ...]:
    """``0,0.5,1`` as numbers; raises :class:`UsageError` for anything else than shares from 0 to 1."""
    try:
        dials = tuple(abs(float(part)) for part in text.split(","))
    except ValueError:
        dials = ()
    if not dials or not all(0 <= dial <= 1 for dial in dials):
        raise UsageError(f"--dials {text!r} is no list of shares from 0 to 1", "try --dials 0,0.25,0.5,0.75,1")
    return dials
