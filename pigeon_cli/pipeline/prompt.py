"""The prompt: wording from a data file, text to ids, images into their slots, ids to embeddings.

Wording lives in ``assets/prompts/*.txt`` in a tiny template language: ``{name}`` is a value, ``{#name}...{/name}`` is
repeated for every entry of a list, or kept once for a text that is not empty. ``<img>`` is a slot for one history
image and, at the end, the image start that the answer follows; ``<emb>`` is the place of the reference.
Numbers and rules: DESIGN.md section 2, parity table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import sentencepiece
import torch
from torch import Tensor, nn

from pigeon_cli.core.errors import InputError
from pigeon_cli.core.vocabulary import Vocabulary

DROPPED = -1
"""Id of a dropped history token: a zero embedding that is still attended to."""
REFERENCE_SLOT = -2
"""Id of a place that takes one vector of the reference."""
IGNORED = -100
"""Label without a loss."""
IMAGE_MARKER, REFERENCE_MARKER = "<img>", "<emb>"

_MARKERS = re.compile(f"({IMAGE_MARKER}|{REFERENCE_MARKER})")
_RESERVED = re.compile(r"<(?=(?:img|emb|s|/s|unk)>)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_FIELD = re.compile(r"\{#(\w+)\}(.*?)\{/\1\}|\{(\w+)\}", re.DOTALL)

Value = str | Sequence[Mapping[str, str]]


def prompt_template(name: str) -> str:
    """The wording called ``name`` (``mini``, ``sticker``, ``poster``); raises :class:`InputError` for others."""
    file = files("pigeon_cli") / "assets" / "prompts" / f"{name}.txt"
    if not name.isidentifier() or not file.is_file():
        raise InputError(f"there is no prompt wording called {name!r}", "use mini, sticker or poster")
    return file.read_text(encoding="utf-8").removesuffix("\n")


def clean_text(text: str) -> str:
    """A user's text without control characters, and with markers taken apart (``<img>`` becomes ``< img>``)."""
    return _RESERVED.sub("< ", _CONTROL.sub(" ", text)).strip()


def render(template: str, values: Mapping[str, Value]) -> str:
    """Fill ``template``; texts pass :func:`clean_text` and are never read as template. Missing names are empty."""

    def expand(match: re.Match[str]) -> str:
        section, body, name = match.groups()
        value = values.get(section or name, "")
        if section is None:
            return clean_text(value) if isinstance(value, str) else ""
        if isinstance(value, str):
            return render(body, values) if value.strip() else ""
        return "".join(render(body, {**values, **entry}) for entry in value)

    return _FIELD.sub(expand, template)


def encode_prompt_text(processor: sentencepiece.SentencePieceProcessor, text: str, vocabulary: Vocabulary) -> list[int]:
    """Ids of a rendered prompt, without a begin-of-sequence id.

    The text is split at the two markers, every piece stripped on both sides and encoded by itself; ``<img>`` becomes
    the image start, ``<emb>`` the placeholder.
    """
    markers = {IMAGE_MARKER: vocabulary.image_start, REFERENCE_MARKER: vocabulary.reference_placeholder}
    ids: list[int] = []
    for piece in _MARKERS.split(text):
        if piece in markers:
            ids.append(markers[piece])
        elif piece.strip():
            ids.extend(int(token) for token in processor.encode(piece.strip()))
    return ids


@dataclass(frozen=True)
class MergedPrompt:
    """One prompt with its images in place; three lists of equal length."""

    ids: tuple[int, ...]
    """Token ids, ``REFERENCE_SLOT`` where a reference vector goes."""
    labels: tuple[int, ...]
    """Ids to be predicted, ``IGNORED`` elsewhere."""
    sources: tuple[int, ...]
    """Running number of the history code that stands here (its column in the mask's layout), else -1."""


@dataclass(frozen=True)
class PromptBatch:
    """Left-padded prompts, int64 [B, L] each; see :class:`MergedPrompt`. ``attention`` is 1 on real tokens."""

    ids: Tensor
    attention: Tensor
    labels: Tensor
    sources: Tensor


def merge_prompt(
    prompt: Sequence[int],
    history: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    *,
    reference_slots: int = 1,
    response: Sequence[int] | None = None,
    with_markers: bool = False,
) -> MergedPrompt:
    """Put code ids into the slots of an encoded prompt.

    ``history`` holds token ids of codes, one sequence per image. ``response`` (training) holds the target's code ids:
    they and an image end follow the prompt and are the only labels. ``with_markers`` surrounds every history image
    with image start and end (an option of the published program). Raises ``ValueError`` if slots and images differ.
    """
    slots = list(prompt).count(vocabulary.image_start) - 1
    if slots != len(history) or prompt[-1] != vocabulary.image_start:
        raise ValueError(f"the prompt has {slots} image slots and an answer, but there are {len(history)} images")
    ids: list[int] = []
    sources: list[int] = []
    images = iter(history)
    column = 0
    for token in prompt[:-1]:
        if token == vocabulary.image_start:
            codes = list(next(images))
            numbers = list(range(column, column + len(codes)))
            column += len(codes)
            if with_markers:
                codes = [vocabulary.image_start, *codes, vocabulary.image_end]
                numbers = [-1, *numbers, -1]
        elif token == vocabulary.reference_placeholder:
            codes, numbers = [REFERENCE_SLOT] * reference_slots, [-1] * reference_slots
        else:
            codes, numbers = [token], [-1]
        ids += codes
        sources += numbers
    answer = [] if response is None else [*response, vocabulary.image_end]
    labels = [IGNORED] * (len(ids) + 1) + answer
    ids += [vocabulary.image_start, *answer]
    sources += [-1] * (1 + len(answer))
    return MergedPrompt(tuple(ids), tuple(labels), tuple(sources))


def pad_prompts(prompts: Sequence[MergedPrompt], vocabulary: Vocabulary) -> PromptBatch:
    """Pad on the left to the longest prompt."""
    length = max(len(prompt.ids) for prompt in prompts)

    def stack(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
        return torch.tensor([[filler] * (length - len(row)) + list(row) for row in rows], dtype=torch.int64)

    return PromptBatch(
        ids=stack([prompt.ids for prompt in prompts], vocabulary.pad),
        attention=stack([[1] * len(prompt.ids) for prompt in prompts], 0),
        labels=stack([prompt.labels for prompt in prompts], IGNORED),
        sources=stack([prompt.sources for prompt in prompts], -1),
    )


def spread_keep(batch: PromptBatch, keep: Tensor) -> Tensor:
    """Keep values [B, L] of the prompt from those of the mask's layout [B, M]; 1 where no history code stands."""
    values = keep.gather(1, batch.sources.clamp(min=0).to(keep.device))
    return torch.where(batch.sources.to(keep.device) >= 0, values, torch.ones_like(values))


def hide_dropped(batch: PromptBatch, keep: Tensor) -> Tensor:
    """Ids [B, L] with ``DROPPED`` in the place of every history token whose ``keep`` [B, M] is 0."""
    return batch.ids.masked_fill(spread_keep(batch, keep) == 0, DROPPED)


def embed_prompt(embedding: nn.Module, ids: Tensor, reference: Tensor | None, keep: Tensor | None = None) -> Tensor:
    """Input embeddings [B, L, D] of prompt ids [B, L].

    ``DROPPED`` rows are zero. The n-th ``REFERENCE_SLOT`` of a row takes ``reference[row, n]`` of [B, S, D]; ``None``
    is for prompts without such a slot. ``keep`` [B, L] (:func:`spread_keep`) multiplies the embeddings: a hard 0 or 1
    that carries the mask's gradient.
    """
    embedded: Tensor = embedding(ids.clamp(min=0))
    embedded = embedded * (ids >= 0).unsqueeze(-1).to(embedded.dtype)
    if keep is not None:
        embedded = embedded * keep.unsqueeze(-1).to(embedded.dtype)
    slots = ids == REFERENCE_SLOT
    if reference is None:
        return embedded
    numbers = (slots.long().cumsum(1) - 1).clamp(0, reference.shape[1] - 1)
    vectors = reference.gather(1, numbers.unsqueeze(-1).expand(-1, -1, reference.shape[-1]))
    return torch.where(slots.unsqueeze(-1), vectors.to(embedded.dtype), embedded)
