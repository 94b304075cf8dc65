"""People's own images as codes: each is encoded once, by its content, and asked for in windows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import sentencepiece
import torch

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.stage_bytes import IMAGES_AT_ONCE
from pigeon_cli.history.intake import load_image
from pigeon_cli.history.preprocess import to_rgb
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.pipeline.tokenize import ImageTokens, tokenize
from pigeon_cli.training.candidates import TasteRequest
from pigeon_cli.training.data.interactions import People, Window
from pigeon_cli.training.sequences import CodedRequest

REMEMBERED: Final = 2000
"""Images whose tokens are kept in memory, features included."""
Codes = tuple[int, ...]


@dataclass
class WindowRequests:
    """Requests for preference pairs: train windows in a random order, the reference being the sixth image."""

    people: People
    seed: int
    _tokens: dict[str, ImageTokens] = field(default_factory=dict)

    def __post_init__(self) -> None:
        windows = _train_windows(self.people)
        self.windows = random.Random(stream_seed(self.seed, "pairs", "order")).sample(windows, len(windows))

    @property
    def count(self) -> int:
        return len(self.windows)

    @property
    def has_answers(self) -> bool:
        return False

    @property
    def sha256(self) -> str:
        return self.people.sha256

    @torch.inference_mode()
    def read(self, tokenizer: VisualTokenizer, numbers: Sequence[int]) -> list[TasteRequest]:
        asked = [self.windows[number] for number in numbers]
        tokens = iter(self._read(tokenizer, [one.image for window in asked for one in window.images]))
        result = []
        for number, window in zip(numbers, asked, strict=True):
            *history, reference = (next(tokens) for _ in window.images)
            result.append(TasteRequest(number, tuple(history), (), reference, window.target.told))
        return result

    def _read(self, tokenizer: VisualTokenizer, paths: Sequence[Path]) -> list[ImageTokens]:
        loaded = [load_image(path) for path in paths]
        if len(self._tokens) > REMEMBERED:
            self._tokens.clear()
        new = {one.sha256: one.image for one in loaded if one.sha256 not in self._tokens}
        found = tokenize(tokenizer, [to_rgb(image) for image in new.values()])
        self._tokens |= dict(zip(new, found, strict=True))
        return [self._tokens[one.sha256] for one in loaded]


class WindowSampler:
    """Draws stage-1 requests from train windows: the sixth image is reference and answer at once."""

    def __init__(self, people: People, codes: dict[Path, Codes], text: sentencepiece.SentencePieceProcessor) -> None:
        self.windows, self.codes, self._text = _train_windows(people), codes, text
        self.users = {window.user for window in self.windows}

    @property
    def text(self) -> sentencepiece.SentencePieceProcessor:
        return self._text

    @property
    def has_strangers(self) -> bool:
        return len(self.users) > 1

    def draw(self, rng: random.Random, planted_share: float = 0.4) -> CodedRequest:
        """A window; in ``planted_share`` of them one history image is another user's, where there is another user."""
        window = rng.choice(self.windows)
        request = coded_window(window, self.codes)
        if rng.random() >= planted_share or not self.has_strangers:
            return request
        place, stranger = rng.randrange(len(request.history)), window
        while stranger.user == window.user:
            stranger = rng.choice(self.windows)
        history = list(request.history)
        history[place] = self.codes[rng.choice(stranger.images).image]
        return replace(request, history=tuple(history), planted=(place,))


def _train_windows(people: People) -> list[Window]:
    windows = people.of_split("train")
    if not windows:
        raise InputError("no window falls into the train split", "give more users or images")
    return windows


def coded_window(window: Window, codes: dict[Path, Codes]) -> CodedRequest:
    """A window as codes; its last image is reference and target."""
    history = tuple(codes[one.image] for one in window.history)
    target = codes[window.target.image]
    return CodedRequest(history, (), window.target.told, target, target, target, is_self=True)


@torch.inference_mode()
def encode_people(
    tokenizer: VisualTokenizer, paths: Iterable[Path], cache: Path, tokenizer_sha256: str, say: Callable[[str], None]
) -> dict[Path, Codes]:
    """Codes of every image of ``paths``; those in the JSONL ``cache`` are not encoded again.

    The cache holds one line per image content and tokenizer, so that renamed, repeated and changed images are seen
    for what they are. Raises :class:`InputError` for an image that cannot be read.
    """
    known = _known(cache, tokenizer_sha256)
    ordered = list(dict.fromkeys(paths))
    result: dict[Path, Codes] = {}
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.open("a", encoding="utf-8") as stream:
        for start in range(0, len(ordered), IMAGES_AT_ONCE):
            loaded = {path: load_image(path) for path in ordered[start : start + IMAGES_AT_ONCE]}
            new = {one.sha256: one.image for one in loaded.values() if one.sha256 not in known}
            found = tokenize(tokenizer, [to_rgb(image) for image in new.values()])
            for digest, tokens in zip(new, found, strict=True):
                known[digest] = tokens.codes
                line = {"image": digest, "tokenizer": tokenizer_sha256, "codes": tokens.codes}
                stream.write(json.dumps(line) + "\n")
            result |= {path: known[one.sha256] for path, one in loaded.items()}
    say(f"encode: {len(result)} images, {len(set(result.values()))} different")
    return result


def _known(cache: Path, tokenizer_sha256: str) -> dict[str, Codes]:
    found: dict[str, Codes] = {}
    for line in cache.read_text(encoding="utf-8").splitlines() if cache.is_file() else ():
        try:
            values = json.loads(line)
        except ValueError:
            continue  # cut off when a run was killed
        if values["tokenizer"] == tokenizer_sha256:
            found[values["image"]] = tuple(values["codes"])
    return found
