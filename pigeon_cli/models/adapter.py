"""From the embedding decoder's context to embeddings of the language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pigeon_cli.core.configs import AdapterConfig


class Adapter(nn.Module):
    """Linear, Linear, tanh, dropout; names of the released file (DESIGN.md section 2, "Personalizer").

    The tanh stands at the end, not between the two layers: so the recorded outputs of the published program show.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.encoder = nn.Linear(config.input_width, config.hidden_width)
        self.decoder = nn.Linear(config.hidden_width, config.output_width)
        self.dropout = nn.Dropout(config.dropout)
        if config.echo_width > 0:
            # What becomes of a place, added to the token from which the answer's code there is predicted.
            self.echo = nn.Linear(config.echo_width, config.output_width)

    def forward(self, context: Tensor) -> Tensor:
        """``context`` [..., input_width] to [..., output_width], each value in (-1, 1) in evaluation."""
        output: Tensor = self.dropout(torch.tanh(self.decoder(self.encoder(context))))
        return output


def reference_vectors(context: Tensor, slots: int) -> Tensor:
    """Pool the decoder's context [B, Q, C] into ``slots`` vectors [B, slots, C].

    One slot is the mean over all queries (released weights). More slots read the queries as a square grid and
    average equal square blocks, in reading order; both sides must be whole.
    """
    batch, queries, width = context.shape
    if slots == 1:
        return context.mean(dim=1, keepdim=True)
    side, coarse = round(queries**0.5), round(slots**0.5)
    if side * side != queries or coarse * coarse != slots or side % coarse:
        raise ValueError(f"{queries} queries cannot be averaged into {slots} square blocks")
    block = side // coarse
    grid = context.reshape(batch, coarse, block, coarse, block, width)
    return grid.mean(dim=(2, 4)).reshape(batch, slots, width)
