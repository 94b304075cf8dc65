"""Linear layers in fewer bits: int8 with a scale per output row, anywhere; nf4 on CUDA, by bitsandbytes.

Measured on two cores (EPYC, torch 2.13), one layer of 4096 x 11008, milliseconds for 1, 4, 12, 44 and 800 rows:
bfloat16 8, 8, 8, 17, 154; torch's packed int8 product 8, 8, 17, 35, 583; int8 made bfloat16 first 53, 61, 63, 70, 211;
torchao 0.18 (``Int8WeightOnlyConfig``), which does the latter, 54, 62, 62, 69, 211. Hence both products, no torchao.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

PACKED_ROWS: Final = 64
"""Up to so many rows the packed product is faster."""
_PACKED_BLOCK: Final = 32
"""Widths that the packed product can take are multiples of this; rows of zeros make up for it on the outer side."""


class Int8Linear(nn.Module):
    """W x + b with W in one byte a number: ``weight`` int8 [out, in] times ``scale`` [out] of the computing type."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> None:
        """Quantizes ``weight`` [out, in], a block of rows at a time; ``kind`` is the type to compute in."""
        super().__init__()
        self.out_features = len(weight)
        rows = -(-len(weight) // _PACKED_BLOCK) * _PACKED_BLOCK
        levels = torch.zeros(rows, weight.shape[1], dtype=torch.int8, device=weight.device)
        scale = torch.ones(rows, dtype=torch.float32, device=weight.device)
        for start in range(0, len(weight), 1024):
            block = weight[start : start + 1024].float()
            step = (block.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
            levels[start : start + len(block)] = (block / step.unsqueeze(1)).round().to(torch.int8)
            scale[start : start + len(block)] = step
        self.register_buffer("weight", levels)
        self.register_buffer("scale", scale.to(kind))
        self.bias = None if bias is None else nn.Parameter(bias.to(kind), requires_grad=False)

    def forward(self, values: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        if self._packs(values):
            flat = values.reshape(-1, values.shape[-1]).contiguous()
            product = torch._weight_int8pack_mm(flat, self.weight, self.scale).reshape(*values.shape[:-1], -1)
        else:
            product = functional.linear(values, self.weight.to(values.dtype)) * self.scale
        product = product[..., : self.out_features]
        return product if self.bias is None else product + self.bias

    def _packs(self, values: Tensor) -> bool:
        rows = values.numel() // values.shape[-1]
        # Other widths crash it.
        whole = self.weight.shape[1] % _PACKED_BLOCK == 0
        return whole and rows <= PACKED_ROWS and values.device.type == "cpu" and values.dtype == torch.bfloat16


def nf4_linear(linear: nn.Linear, kind: torch.dtype, device: torch.device) -> nn.Module:
    """``linear`` on the CUDA ``device`` with its weight in four bits (NormalFloat, blocks of 64)."""
    import bitsandbytes

    library: Any = bitsandbytes.nn
    made: nn.Module = library.Linear4bit(
        linear.in_features, linear.out_features, linear.bias is not None, compute_dtype=kind, quant_type="nf4",
        device="meta",
    )  # fmt: skip
    made.weight = library.Params4bit(linear.weight.data.to(kind), requires_grad=False, quant_type="nf4").to(device)
    if linear.bias is not None:
        made.bias = nn.Parameter(linear.bias.data.to(device, kind), requires_grad=False)
    return made
