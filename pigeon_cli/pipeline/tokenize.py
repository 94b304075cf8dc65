"""Images to codes, every image once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from pigeon_cli.core.vocabulary import Vocabulary
from pigeon_cli.engine.stage_bytes import IMAGES_AT_ONCE
from pigeon_cli.history.preprocess import to_pixels
from pigeon_cli.models.quantizer import Quantizer
from pigeon_cli.models.visual_tokenizer import TokenizedImages, VisualTokenizer


@dataclass(frozen=True)
class ImageTokens:
    """The kept tokens of one image: its style tokens, if any, then patches in reading order."""

    codes: tuple[int, ...]
    patches: tuple[int, ...]
    """Row-major patch of each token, -1 for a style token; empty where the tokenizer's selector has read nothing and
    every code stands for a patch."""
    features: Tensor
    """Float [tokens, F]: what the similarity mask compares."""

    def ids(self, vocabulary: Vocabulary) -> list[int]:
        """Token ids of the codes."""
        return [vocabulary.to_id(code) for code in self.codes]


def tokenize(tokenizer: VisualTokenizer, images: Sequence[Image.Image]) -> list[ImageTokens]:
    """Tokens of RGB images of any size (DESIGN.md section 2, "Visual tokenizer"), without noise."""
    tokens: list[ImageTokens] = []
    for start in range(0, len(images), IMAGES_AT_ONCE):
        pixels = [to_pixels(image, tokenizer.config.image_size) for image in images[start : start + IMAGES_AT_ONCE]]
        batch = torch.stack([torch.from_numpy(part) for part in pixels])
        found = tokenizer.encode(batch.to(tokenizer.quantizer.embedding.weight))
        tokens += kept_tokens(found, tokenizer.config.style_tokens)
    return tokens


def kept_tokens(found: TokenizedImages, style_tokens: int = 0) -> list[ImageTokens]:
    """The tokens that the selector kept, image by image."""
    tokens = []
    for codes, keep, features in zip(found.codes, found.keep, found.features, strict=True):
        kept = keep.nonzero()[:, 0]
        patches = _patches(kept.tolist(), style_tokens)
        tokens.append(ImageTokens(tuple(codes[kept].tolist()), patches, features[kept]))
    return tokens


def drawn_tokens(quantizer: Quantizer, codes: Sequence[int], style_tokens: int = 0) -> ImageTokens:
    """Tokens of codes that the language model drew; their features are the code vectors (:func:`as_drawn`)."""
    row = torch.tensor(list(codes), device=quantizer.embedding.weight.device)
    patches = _patches(range(len(codes)), style_tokens) if style_tokens else ()
    return ImageTokens(tuple(codes), patches, quantizer.lookup(row))


def _patches(tokens: Iterable[int], style_tokens: int) -> tuple[int, ...]:
    """Row-major patches of tokens by their number, -1 for style tokens."""
    return tuple(max(-1, token - style_tokens) for token in tokens)


def as_drawn(quantizer: Quantizer, tokens: ImageTokens) -> ImageTokens:
    """The same tokens with code vectors for features, comparable with those of :func:`drawn_tokens`."""
    return ImageTokens(tokens.codes, tokens.patches, drawn_tokens(quantizer, tokens.codes).features)
