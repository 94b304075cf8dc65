"""Similarity scores of feature vectors: CS, CIS and DIS of the paper (DESIGN.md section 2, "Metrics")."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def cosine_scores(first: Tensor, second: Tensor) -> Tensor:
    """100 * cosine of features [N, D] with features [M, D]: float32 [N, M], from -100 to 100; a zero vector gives 0."""
    scores: Tensor = 100 * functional.normalize(first.float(), dim=-1) @ functional.normalize(second.float(), dim=-1).T
    return scores
