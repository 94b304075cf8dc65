"""CLIP, which compares drawn pixels with images and words (DESIGN.md section 2, "Metrics")."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel


def build_clip(settings: dict[str, Any]) -> CLIPModel:
    """The CLIP of a ``config.json``; weights are random until they are loaded."""
    return CLIPModel(CLIPConfig.from_dict(settings))


def image_vectors(clip: CLIPModel, pixels: Tensor) -> Tensor:
    """Float32 unit vectors [B, W] of normalised pixels [B, 3, side, side]."""
    weight = clip.visual_projection.weight
    return _unit(clip.get_image_features(pixel_values=pixels.to(weight)))


def word_vectors(clip: CLIPModel, ids: Tensor, attention: Tensor) -> Tensor:
    """Float32 unit vectors [B, W] of text ids int64 [B, L], of which ``attention`` [B, L] counts."""
    return _unit(clip.get_text_features(input_ids=ids, attention_mask=attention))


def _unit(found: Any) -> Tensor:
    # Versions of transformers return the vectors themselves, or beside other outputs.
    vectors: Tensor = getattr(found, "pooler_output", found)
    return functional.normalize(vectors.float(), dim=-1)
