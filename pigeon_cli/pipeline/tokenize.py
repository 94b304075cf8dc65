"""Images to codes, every image once."""

from __future__ import annotations

from collections.abc import Sequence
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
    """The kept tokens of one image in patch order."""

    codes: tuple[int, ...]
    patches: tuple[int, ...]
    """Row-major patch of each token; empty for codes that were drawn instead of read."""
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
        tokens += kept_tokens(tokenizer.encode(batch.to(tokenizer.quantizer.embedding.weight)))
    return tokens


def kept_tokens(found: TokenizedImages) -> list[ImageTokens]:
    """The tokens that the selector kept, image by image."""
    tokens = []
    for codes, keep, features in zip(found.codes, found.keep, found.features, strict=True):
        patches = keep.nonzero()[:, 0]
        tokens.append(ImageTokens(tuple(codes[patches].tolist()), tuple(patches.tolist()), features[patches]))
    return tokens


def drawn_tokens(quantizer: Quantizer, codes: Sequence[int]) -> ImageTokens:
    """Tokens of codes that the language model drew; their features are the code vectors (:func:`as_drawn`)."""
    row = torch.tensor(list(codes), device=quantizer.embedding.weight.device)
    return ImageTokens(tuple(codes), (), quantizer.lookup(row))


def as_drawn(quantizer: Quantizer, tokens: ImageTokens) -> ImageTokens:
    """The same tokens with code vectors for features, comparable with those of :func:`drawn_tokens`."""
    return ImageTokens(tokens.codes, tokens.patches, drawn_tokens(quantizer, tokens.codes).features)
