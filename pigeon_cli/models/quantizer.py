"""Vectors to code indices and back (DESIGN.md section 2, "Visual tokenizer"; NOTES 2.5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS_AT_ONCE = 4096


class Quantizer(nn.Module):
    """Codebook of unit vectors; a vector becomes the index of the row that is nearest after L2 normalisation."""

    def __init__(self, code_count: int, code_width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(code_count, code_width)
        with torch.no_grad():
            self.embedding.weight.copy_(F.normalize(self.embedding.weight, dim=-1))

    @torch.no_grad()
    def encode(self, vectors: Tensor, part: slice = slice(None)) -> Tensor:
        """Float [..., code_width] to int64 [...], in float32 even under autocast and a few rows at a time.

        With ``part`` only those rows of the codebook are looked at, and the result counts from the first of them.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            codebook = self.embedding.weight[part].float()
            # argmin |z - e|^2 over e = argmax z.e - |e|^2 / 2; the second term keeps rows off the unit sphere right.
            half_norms = codebook.square().sum(-1) / 2
            rows = F.normalize(vectors.float().reshape(-1, codebook.shape[1]), dim=-1)
            found = [(part @ codebook.T - half_norms).argmax(-1) for part in torch.split(rows, ROWS_AT_ONCE)]
        return torch.cat(found).reshape(vectors.shape[:-1])

    def lookup(self, codes: Tensor) -> Tensor:
        """Int64 [...] to float [..., code_width]; a negative code (dropped or padding) gives zeros."""
        vectors: Tensor = self.embedding(codes.clamp(min=0))
        return vectors * (codes >= 0).unsqueeze(-1)
