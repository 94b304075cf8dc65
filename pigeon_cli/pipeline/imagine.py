"""From tokens to new codes: masks for every dial position, one prefix for all of them, one batch that continues it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import sentencepiece
import torch
from torch import Tensor, nn

from pigeon_cli.core.configs import ModelSpec, SamplingConfig
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.core.records import TokenMask
from pigeon_cli.engine.stage_bytes import LANGUAGE_ROWS
from pigeon_cli.models.mask_generator import REFERENCE, MaskGenerator, decide
from pigeon_cli.pipeline.mask import TokenLayout, choose_mask, lay_out
from pigeon_cli.pipeline.positions import position_step, token_positions
from pigeon_cli.pipeline.prompt import (
    REFERENCE_SLOT,
    MergedPrompt,
    Value,
    encode_prompt_text,
    hide_dropped,
    merge_prompt,
    pad_prompts,
    prompt_template,
    render,
)
from pigeon_cli.pipeline.reference import ReferenceReader, SeenReference, embed_request, favoured
from pigeon_cli.pipeline.sampling import Drawn, Model, Prefix, allowed_ids, prefill, sample_codes, select_rows
from pigeon_cli.pipeline.settings import Settings
from pigeon_cli.pipeline.tokenize import ImageTokens

REFERENCE_WORDING: Final = "words"


@dataclass(frozen=True)
class DialMasks:
    """What is kept at every dial position; the history's part is the same at all of them."""

    layout: TokenLayout
    """One row: the history's tokens, then the reference's."""
    keep: Tensor
    """Float [dials, L], 1 keeps and 0 drops."""
    scores: Tensor
    """Float [L], larger is kept first; empty where nothing was scored."""

    def image_mask(self, tokens: ImageTokens, image: int, dial: int = 0) -> TokenMask:
        """The mask of history image ``image`` (from 1), or of the reference (0), at dial position ``dial``."""
        member = (self.layout.images[0] == image) & (self.layout.types[0] != 0)
        keep = (self.keep[dial, member] > 0.5).tolist()
        return TokenMask(
            kept=tuple(place for place, kept in enumerate(keep) if kept),
            dropped=tuple(place for place, kept in enumerate(keep) if not kept),
            scores=tuple(self.scores[member].tolist()) if len(self.scores) else (),
            codes=tokens.codes,
            patches=tokens.patches,
        )


def decide_masks(
    kind: str,
    history: Sequence[ImageTokens],
    reference: ImageTokens,
    dials: Sequence[float],
    spec: ModelSpec,
    *,
    history_alpha: float,
    seed: int,
    generator: MaskGenerator | None,
    embedding: nn.Module | None,
) -> DialMasks:
    """Masks by one of ``MASK_KINDS``; tokens are scored once, since the dial moves the threshold and not the order."""
    device = reference.features.device
    ids = [tokens.ids(spec.vocabulary) for tokens in history]
    placed = lay_out([ids], [reference.ids(spec.vocabulary)], spec.vocabulary.pad)
    layout = TokenLayout(*(part.to(device) for part in (placed.ids, placed.positions, placed.types, placed.images)))
    features = torch.cat([tokens.features for tokens in (*history, reference)]).unsqueeze(0)
    streams = [torch.Generator().manual_seed(stream_seed(seed, "mask"))] if kind == "random" else None
    decision = choose_mask(
        kind,
        layout,
        history_alpha,
        dials[0],
        generator=generator,
        embedding=embedding,
        features=features,
        streams=streams,
    )
    if kind == "off":
        return DialMasks(layout, decision.keep.expand(len(dials), -1), decision.scores[0, :0])
    # The margin holds the noise, which is all that orders a random mask.
    order = decision.margin if kind == "random" else decision.scores
    rows = len(dials)
    decided = decide(
        order.expand(rows, -1), layout.types.expand(rows, -1), history_alpha, list(dials), surrogate_tau=1.0
    )
    return DialMasks(layout, decided.keep, order[0])


def see_dials(masks: DialMasks, reader: ReferenceReader, fidelity: float | None = None) -> SeenReference:
    """What the language model sees of the reference, one row per dial position; ``fidelity`` is by default the model's
    own (:func:`pigeon_cli.pipeline.reference.favoured`)."""
    rows = len(masks.keep)
    layout = TokenLayout(
        masks.layout.ids.expand(rows, -1),
        masks.layout.positions.expand(rows, -1),
        masks.layout.types.expand(rows, -1),
        masks.layout.images.expand(rows, -1),
    )
    favour = favoured(layout, masks.keep, reader.quantizer, reader.spec, fidelity)
    return replace(reader.see_masked(layout, masks.keep), favour=favour)


def word_prompt(
    text: sentencepiece.SentencePieceProcessor,
    spec: ModelSpec,
    history: Sequence[ImageTokens],
    words: str,
    settings: Settings | None = None,
    titles: Sequence[str] = (),
) -> MergedPrompt:
    """The wording of ``settings``, by default the model's own, with everything in its place.

    ``titles`` are those of the history, if any.
    """
    liked = [{"title": title} for title in titles] or [{}] * len(history)
    values: dict[str, Value] = {
        "history": liked,
        "words": words,
        "emotion": settings.emotion if settings else "",
        "title": settings.title if settings else "",
    }
    wording = settings.wording if settings else spec.name
    return _merged(text, spec, wording, values, history, spec.reference_slots)


def reference_prompt(text: sentencepiece.SentencePieceProcessor, spec: ModelSpec, words: str) -> MergedPrompt:
    """The words and the image start, by which the base model draws a reference."""
    return _merged(text, spec, REFERENCE_WORDING, {"words": words}, [], 0)


def _merged(
    text: sentencepiece.SentencePieceProcessor,
    spec: ModelSpec,
    wording: str,
    values: Mapping[str, Value],
    history: Sequence[ImageTokens],
    slots: int,
) -> MergedPrompt:
    return merge_prompt(
        encode_prompt_text(text, render(prompt_template(wording), values), spec.vocabulary),
        [tokens.ids(spec.vocabulary) for tokens in history],
        spec.vocabulary,
        reference_slots=slots,
        with_markers=spec.history_markers,
    )


def imagine(
    model: Model,
    spec: ModelSpec,
    asked: MergedPrompt,
    masks: DialMasks,
    reference: SeenReference,
    rows: Sequence[int],
    streams: Sequence[torch.Generator],
    sampling: SamplingConfig,
    batch_rows: int = LANGUAGE_ROWS,
) -> list[Drawn]:
    """Draw codes once per entry of ``rows`` (dial positions); ``batch_rows`` sequences make one batch at most.

    The prompt up to the slots is read once; all dial positions continue from there as one batch (DESIGN.md, "The shape
    of a fast run"). The unconditional context of guidance is the image start alone: were the history part of it,
    guidance would push away from the history's look while it pushes towards the reference.
    """
    ids = _hidden_ids(asked, masks.keep[:1, masks.layout.types[0] != REFERENCE], spec)
    slot = asked.ids.index(REFERENCE_SLOT)
    prefix = _read(model, spec, ids, slice(0, slot), None)
    fanned = select_rows(prefix, torch.zeros(len(reference), dtype=torch.int64))
    branches = _read(model, spec, ids.expand(len(reference), -1), slice(slot, None), fanned, reference)
    return _sample(model, spec, branches, nothing_asked(model, spec, ids), rows, streams, sampling, batch_rows)


def imagine_reference(
    model: Model, spec: ModelSpec, asked: MergedPrompt, stream: torch.Generator, sampling: SamplingConfig
) -> tuple[int, ...]:
    """Codes of a reference from words alone, by the base model; the unconditional context is the image start."""
    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([asked.ids], device=device)
    prefix = _read(model, spec, ids, slice(None), None)
    drawn = _sample(model, spec, prefix, nothing_asked(model, spec, ids), [0], [stream], sampling)
    return tuple(spec.vocabulary.to_code(token) for token in drawn[0].token_ids)


def _sample(
    model: Model,
    spec: ModelSpec,
    prefix: Prefix,
    unconditional: Prefix,
    rows: Sequence[int],
    streams: Sequence[torch.Generator],
    sampling: SamplingConfig,
    batch_rows: int = LANGUAGE_ROWS,
) -> list[Drawn]:
    return sample_codes(
        model,
        prefix,
        rows,
        sampling,
        allowed=allowed_ids(spec.vocabulary),
        image_end=spec.vocabulary.image_end,
        generators=streams,
        unconditional=unconditional,
        batch_rows=batch_rows,
    )


def _read(
    model: Model,
    spec: ModelSpec,
    ids: Tensor,
    part: slice,
    prefix: Prefix | None,
    reference: SeenReference | None = None,
) -> Prefix:
    """Read the columns ``part`` of whole prompts ``ids`` [B, L]; ``prefix`` holds those before it."""
    positions = token_positions(ids, torch.ones_like(ids), spec)[:, part]
    ids = ids[:, part]
    read = embed_request(model.get_input_embeddings(), ids, reference, spec)
    step = position_step(spec)
    return prefill(model, read.embedded, torch.ones_like(ids), prefix, positions, step, read.coming, read.favour)


def nothing_asked(model: Model, spec: ModelSpec, ids: Tensor) -> Prefix:
    """The unconditional context: the image start that ends the prompts ``ids`` [B, L]."""
    return _read(model, spec, ids[:1, -1:], slice(None), None)


def _hidden_ids(prompt: MergedPrompt, keep: Tensor, spec: ModelSpec) -> Tensor:
    """Ids [1, L] on the mask's device with the dropped history taken out."""
    batch = pad_prompts([prompt], spec.vocabulary)
    return hide_dropped(replace(batch, ids=batch.ids.to(keep.device)), keep)
