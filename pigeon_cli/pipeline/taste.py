"""The taste of a history, for the image generator of a small model (``models/taste.py``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from pigeon_cli.core.records import TokenMask
from pigeon_cli.engine.residency import TASTE, TOKENIZER, Parts
from pigeon_cli.history.preprocess import normalised, to_shares
from pigeon_cli.models.taste import picture_statistics


def read_tastes(parts: Parts, history: Sequence[Image.Image]) -> Tensor | None:
    """Taste vectors float [images, width] of RGB images; ``None`` where the model has no taste reader."""
    spec = parts.model.spec
    if spec.taste is None:
        return None
    shares = [to_shares(image, spec.tokenizer.image_size) for image in history]
    images, pixels = (
        torch.stack([torch.from_numpy(one) for one in rows]) for rows in (shares, map(normalised, shares))
    )
    with parts.use(TOKENIZER) as tokenizer, parts.use(TASTE) as reader:
        weight = tokenizer.quantizer.embedding.weight
        features = tokenizer.patch_features(pixels.to(weight))
        vectors: Tensor = reader(picture_statistics(images.to(weight.device), features).to(reader.mean))
        return vectors


def mean_taste(vectors: Tensor | None, masks: Sequence[TokenMask]) -> Tensor | None:
    """The mean [width] over a history; an image counts by the share of its tokens that the mask kept."""
    if vectors is None:
        return None
    shares = torch.tensor([len(mask.kept) / max(1, len(mask.kept) + len(mask.dropped)) for mask in masks]).to(vectors)
    return (vectors * shares.unsqueeze(1)).sum(0) / shares.sum()
