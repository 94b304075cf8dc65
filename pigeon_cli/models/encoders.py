"""CLIP, which compares drawn pixels with images and words (DESIGN.md section 2, "Metrics")."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import CLIPConfig, CLIPModel


def build_clip(settings: dict[str, Any]) -> CLIPModel:
    """The CLIP of a ``config.json``; weights are random until they are loaded."""
    return CLIPModel(CLIPConfig.from_dict(settings))


def image_features(clip: CLIPModel, pixels: Tensor) -> Tensor:
    """Float32 vectors [B, W] of normalised pixels [B, 3, side, side]; their lengths are CLIP's own."""
    weight = clip.visual_projection.weight
    return _vectors(clip.get_image_features(pixel_values=pixels.to(weight)))


def word_features(clip: CLIPModel, ids: Tensor, attention: Tensor) -> Tensor:
    """Float32 vectors [B, W] of text ids int64 [B, L], of which ``attention`` [B, L] counts."""
    device = clip.text_projection.weight.device
    return _vectors(clip.get_text_features(input_ids=ids.to(device), attention_mask=attention.to(device)))


def _vectors(found: Any) -> Tensor:
    # Versions of transformers return the vectors themselves, or beside other outputs.
    vectors: Tensor = getattr(found, "pooler_output", found)
    return vectors.float()
