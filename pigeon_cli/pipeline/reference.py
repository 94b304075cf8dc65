"""What the language model is given of a masked reference: vectors for the slots, and echoes at the answer's places.

A small model reads a reference much sooner where it need not look for it: with a translator, what becomes of the
reference at a place in the style of the history is also added to the token from which the answer's code there is
predicted. Released weights have the slots alone (DESIGN.md section 2, "Personalizer").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.vocabulary import Vocabulary
from pigeon_cli.engine.residency import DECODER, QUANTIZER, TRANSLATOR, Part, Parts
from pigeon_cli.models.adapter import Adapter, reference_vectors
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.mask_generator import HISTORY
from pigeon_cli.models.quantizer import Quantizer
from pigeon_cli.models.translator import Translator
from pigeon_cli.pipeline.mask import TokenLayout, reference_part
from pigeon_cli.pipeline.prompt import REFERENCE_SLOT, embed_prompt


@dataclass(frozen=True)
class SeenReference:
    """Masked references as the language model sees them."""

    slots: Tensor
    """[B, slots, D]."""
    echo: Tensor | None = None
    """[B, places, D]; ``None`` where the model has none."""
    favour: Tensor | None = None
    """[B, places, V]: :func:`favoured`; ``None`` where the model is not faithful to places."""

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True)
class EmbeddedPrompts:
    """What enters the language model."""

    embedded: Tensor
    """[B, L, D]."""
    coming: Tensor | None = None
    """[B, S, D]: added to the embeddings of the tokens that are drawn after the prompts, one after another."""
    favour: Tensor | None = None
    """[B, S, V]: added to their scores."""


@dataclass(frozen=True)
class ReferenceReader:
    """The modules that a reference passes on its way to the language model."""

    spec: ModelSpec
    quantizer: Quantizer
    decoder: EmbeddingDecoder
    adapter: Adapter
    translator: Translator | None = None

    def see(self, codes: Tensor, present: Tensor, keep: Tensor, style: Tensor | None) -> SeenReference:
        """``codes`` int64 [B, L] (-1: padding), ``present`` bool [B, L]; ``keep`` [B, L] carries the mask's gradient.

        ``style`` [B, style tokens, code_width] are the history's mean style vectors, for the translator.
        """
        vectors = self.quantizer.lookup(codes)
        context = self.decoder(vectors, present, None if self.spec.repack_reference else keep).context
        slots: Tensor = self.adapter(reference_vectors(context, self.spec.reference_slots))
        if self.translator is None or style is None:
            return SeenReference(slots)
        first = self.spec.tokenizer.style_tokens
        kept = (keep * present)[:, first:]
        echo = self.adapter.echo(self.translator(vectors[:, first:], kept, style))
        # The style of the answer is the history's: nothing is echoed where its style tokens are predicted.
        return SeenReference(slots, functional.pad(echo, (0, 0, first, 0)))

    def see_masked(self, layout: TokenLayout, keep: Tensor) -> SeenReference:
        """:meth:`see` of the references in ``layout`` under ``keep`` [B, M]."""
        ids, present, kept = reference_part(layout, keep, self.spec.repack_reference)
        codes = (ids - self.spec.vocabulary.first_code).masked_fill(~present, -1)
        return self.see(codes, present, kept, self._history_style(layout, keep))

    def _history_style(self, layout: TokenLayout, keep: Tensor) -> Tensor | None:
        """Mean vectors [B, style tokens, code_width] of the kept style tokens of all history images."""
        count = self.spec.tokenizer.style_tokens
        if self.translator is None or not count:
            return None
        places = torch.arange(1, count + 1, device=layout.ids.device)
        is_style = (layout.positions.unsqueeze(-1) == places) & (layout.types == HISTORY).unsqueeze(-1)
        weights = is_style * keep.unsqueeze(-1)
        vectors = self.quantizer.lookup(layout.ids - self.spec.vocabulary.first_code)
        shares = weights / weights.sum(1, keepdim=True).clamp_min(1.0)
        return torch.einsum("bls,blc->bsc", shares.to(vectors.dtype), vectors)


@contextmanager
def reader_of(parts: Parts, adapter: Part[Adapter]) -> Iterator[ReferenceReader]:
    """The modules in memory, with ``adapter`` between decoder and language model."""
    spec = parts.model.spec
    with ExitStack() as stack:
        quantizer, decoder = stack.enter_context(parts.use(QUANTIZER)), stack.enter_context(parts.use(DECODER))
        translator = None if spec.translator is None else stack.enter_context(parts.use(TRANSLATOR))
        yield ReferenceReader(spec, quantizer, decoder, stack.enter_context(parts.use(adapter)), translator)


def join_references(parts: Sequence[SeenReference]) -> SeenReference:
    """The rows of all ``parts``, one after another."""
    echoes = [part.echo for part in parts if part.echo is not None]
    favours = [part.favour for part in parts if part.favour is not None]
    slots = torch.cat([part.slots for part in parts])
    return SeenReference(slots, *(torch.cat(each) if each else None for each in (echoes, favours)))


def embed_request(
    embedding: nn.Module, ids: Tensor, reference: SeenReference | None, spec: ModelSpec, keep: Tensor | None = None
) -> EmbeddedPrompts:
    """:func:`embed_prompt` of ids [B, L] with one reference a row, and its echo where the model has one.

    A row without a slot leaves its reference aside.
    """
    embedded = embed_prompt(embedding, ids, None if reference is None else reference.slots, keep)
    if reference is None or reference.echo is None:
        return EmbeddedPrompts(embedded, favour=None if reference is None else reference.favour)
    asked = reference.echo[(ids == REFERENCE_SLOT).any(1)]
    echoed = echo_reference(embedded, ids, asked, spec.vocabulary)
    return EmbeddedPrompts(echoed, reference.echo[:, 1:], reference.favour)


def favoured(
    layout: TokenLayout, keep: Tensor, quantizer: Quantizer, spec: ModelSpec, fidelity: float | None = None
) -> Tensor | None:
    """What the kept places of references add to the scores of the answer's codes there, float [B, places, V].

    ``fidelity``, by default ``sampling.fidelity``, for the reference's own code, less for another by the cosine of the
    two; nothing where the reference is hidden, and nothing for its style tokens, since the answer's are the history's.
    So the dial goes from the reference's own drawing in the style of the history to what the language model makes of
    it.
    """
    fidelity = spec.sampling.fidelity if fidelity is None else fidelity
    if not fidelity:
        return None
    ids, present, kept = reference_part(layout, keep, spec.repack_reference)
    first = spec.vocabulary.first_code
    vectors = quantizer.lookup((ids - first).masked_fill(~present, -1))
    strength = fidelity * kept * present
    strength[:, : spec.tokenizer.style_tokens] = 0
    return functional.pad(favoured_codes(vectors, strength, quantizer, spec), (first, spec.tokenizer.style_codes))


def favoured_codes(vectors: Tensor, strength: Tensor, quantizer: Quantizer, spec: ModelSpec) -> Tensor:
    """The same by patch codes, float [B, places, patch codes], of vectors [B, places, code_width]; ``strength``
    [B, places] is the fidelity to those that are not hidden."""
    codebook = functional.normalize(quantizer.embedding.weight[: spec.tokenizer.patch_codes], dim=-1)
    likeness = (functional.normalize(vectors, dim=-1) @ codebook.T).clamp_min(0)
    return likeness * strength.unsqueeze(-1)


def echo_reference(embedded: Tensor, ids: Tensor, echo: Tensor, vocabulary: Vocabulary) -> Tensor:
    """``embedded`` [B, L, D] with echoes added to the pictures that are asked for.

    ``echo`` [R, places, D] holds one reference per run of ``REFERENCE_SLOT`` in ``ids`` [B, L], in order of appearance.
    A picture whose image start follows such a run is its answer: the token from which its n-th code is predicted takes
    the n-th vector.
    """
    slots, start, end = ids == REFERENCE_SLOT, ids == vocabulary.image_start, ids == vocabulary.image_end
    after_slot = functional.pad(slots, (1, 0))[:, :-1]
    columns = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    begin = (columns * start).cummax(1).values
    ends = end.long().cumsum(1)
    open_still = (start & after_slot).gather(1, begin) & (ends == ends.gather(1, begin))
    place = columns - begin
    inside = open_still & (place < echo.shape[1])
    run = (slots & ~after_slot).flatten().long().cumsum(0).view_as(ids) - 1
    added = echo[run[inside], place[inside]].to(embedded.dtype)
    return embedded.index_put((inside,), embedded[inside] + added)
