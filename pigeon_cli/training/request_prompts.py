"""Coded requests as the language model reads them: one way for every stage of alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sentencepiece
from torch import Tensor, nn

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.pipeline.mask import TokenLayout, lay_out
from pigeon_cli.pipeline.prompt import (
    MergedPrompt,
    PromptBatch,
    Value,
    encode_prompt_text,
    merge_prompt,
    prompt_template,
    render,
    spread_keep,
)
from pigeon_cli.pipeline.reference import EmbeddedPrompts, ReferenceReader, SeenReference, embed_request
from pigeon_cli.training.sequences import CodedRequest, vocabulary_ids


@dataclass(frozen=True)
class RequestPrompts:
    """Wording, masks and reference slots of requests; the modules are those of the stage that asks."""

    spec: ModelSpec
    text: sentencepiece.SentencePieceProcessor
    reader: ReferenceReader
    embedding: nn.Module
    """The language model's table of input embeddings."""

    def layout(self, requests: Sequence[CodedRequest]) -> TokenLayout:
        """History and reference tokens of ``requests`` side by side, on the modules' device."""
        vocabulary = self.spec.vocabulary
        layout = lay_out(
            [[vocabulary_ids(vocabulary, image) for image in request.history] for request in requests],
            [vocabulary_ids(vocabulary, request.reference) for request in requests],
            vocabulary.pad,
        )
        device = self.reader.quantizer.embedding.weight.device
        return TokenLayout(*(part.to(device) for part in (layout.ids, layout.positions, layout.types, layout.images)))

    def prompt(self, request: CodedRequest, answer: Sequence[int] | None) -> MergedPrompt:
        """The model's wording around ``request``; the codes of ``answer`` and an image end are its only labels."""
        vocabulary = self.spec.vocabulary
        values: dict[str, Value] = {"history": [{}] * len(request.history), "words": request.words}
        return merge_prompt(
            encode_prompt_text(self.text, render(prompt_template(self.spec.name), values), vocabulary),
            [vocabulary_ids(vocabulary, image) for image in request.history],
            vocabulary,
            reference_slots=self.spec.reference_slots,
            response=None if answer is None else vocabulary_ids(vocabulary, answer),
            with_markers=self.spec.history_markers,
        )

    def unasked(self, answer: Sequence[int]) -> MergedPrompt:
        """``answer`` after an image start alone, which is the unconditional context of guidance."""
        vocabulary = self.spec.vocabulary
        response = vocabulary_ids(vocabulary, answer)
        return merge_prompt([vocabulary.image_start], [], vocabulary, response=response)

    def see(self, layout: TokenLayout, keep: Tensor) -> SeenReference:
        """What is seen of the references under ``keep`` [B, M] of the layout."""
        return self.reader.see_masked(layout, keep)

    def embed(self, batch: PromptBatch, layout: TokenLayout, keep: Tensor) -> EmbeddedPrompts:
        """Masked prompts [B, L] as the language model reads them."""
        ids = batch.ids.to(layout.ids.device)
        return embed_request(self.embedding, ids, self.see(layout, keep), self.spec, spread_keep(batch, keep))
