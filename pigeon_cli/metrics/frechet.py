"""Frechet distance of two feature sets taken as Gaussians (Heusel et al. 2017), the formula of FID."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Features [N, D] and [M, D], at least two rows each: ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``.

    Computed in float64 from eigenvalues: the trace of the root of ``S1 S2`` is that of the symmetric
    ``S1^(1/2) S2 S1^(1/2)``. ``ValueError`` where there are fewer rows or other widths.
    """
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"no distance between features {tuple(first.shape)} and {tuple(second.shape)}")
    one, other = first.double(), second.double()
    difference = one.mean(0) - other.mean(0)
    covariance1, covariance2 = _covariance(one), _covariance(other)
    values, vectors = torch.linalg.eigh(covariance1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp_min(0).sqrt().sum()
    distance = difference @ difference + covariance1.trace() + covariance2.trace() - 2 * cross
    # Rounding of sets that are the same may end below 0.
    return max(0.0, float(distance))


def _covariance(features: Tensor) -> Tensor:
    """Unbiased covariance [D, D]."""
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)
