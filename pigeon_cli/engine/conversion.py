"""Weights as they come from a file into the type, the device and the precision that a plan says, tensor by tensor."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from functools import cache
from mmap import PAGESIZE
from typing import Any, Final

import torch
from torch import Tensor, nn

from pigeon_cli.core.errors import UsageError
from pigeon_cli.engine.plan import Precision
from pigeon_cli.models.quantized import Int8Linear, nf4_linear

KINDS: Final = {
    Precision.FLOAT32: torch.float32,
    Precision.BFLOAT16: torch.bfloat16,
    Precision.INT8: torch.bfloat16,
    Precision.NF4: torch.bfloat16,
}
"""The type that is computed with."""

_DONT_NEED: Final = 4
"""``MADV_DONTNEED`` of Linux."""


def convert(module: nn.Module, precision: Precision, device: torch.device, quantized: bool, mapped: bool) -> None:
    """Bring ``module`` to ``device`` in ``precision``, in place; what is right already is not touched.

    One tensor is there twice at a time: the pages of a ``mapped`` one go back as soon as its successor is made.
    Buffers that no file holds keep their type: they are tables that lose their meaning in fewer bits. ``quantized``
    puts linear layers into fewer bits, where the precision says so.
    """
    kind = KINDS[precision]
    if quantized and precision in (Precision.INT8, Precision.NF4):
        for owner, name, linear in list(_linears(module)):
            made = _quantize(linear, precision, device)
            setattr(owner, name, made)
            if mapped:
                release_pages(linear.weight.data)
    kept = set(module.state_dict(keep_vars=True))
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        wide = tensor.is_floating_point() and name in kept and not _of_quantized(module, name)
        changed = tensor.data.to(device, kind if wide else None)
        if changed.data_ptr() != tensor.data_ptr():
            before, tensor.data = tensor.data, changed
            if mapped and name in kept and before.device.type == "cpu":
                release_pages(before)


def release_pages(tensor: Tensor) -> None:
    """Give back the memory of a tensor that is mapped from a file and not needed any more; read again, it is there.

    Only for tensors of :func:`pigeon_cli.weights.published.read_tensors`: any other would lose its values.
    """
    start = -(-tensor.data_ptr() // PAGESIZE) * PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // PAGESIZE * PAGESIZE
    if end > start and (library := _library()) is not None:
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)


def trim() -> None:
    """Return what was freed to the system where the C library keeps it for later (glibc)."""
    trimming: Callable[[int], int] | None = getattr(_library(), "malloc_trim", None)
    if trimming is not None:
        trimming(0)


def check_quantizer(precision: Precision, device: str) -> None:
    """Raise :class:`UsageError` where nf4 cannot run: off CUDA, or without bitsandbytes."""
    if precision is not Precision.NF4:
        return
    if not device.startswith("cuda"):
        raise UsageError("nf4 runs on CUDA only", "use --quantize int8, or a machine with a CUDA device")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise UsageError("nf4 needs bitsandbytes", "type: pip install 'pigeon-cli[nf4]'") from error


@cache
def _library() -> Any:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _linears(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for owner in module.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.Linear):
                yield owner, name, child


def _quantize(linear: nn.Linear, precision: Precision, device: torch.device) -> nn.Module:
    if precision is Precision.NF4:
        return nf4_linear(linear, KINDS[precision], device)
    bias = None if linear.bias is None else linear.bias.data
    return Int8Linear(linear.weight.data.to(device), bias, KINDS[precision])


def _of_quantized(module: nn.Module, name: str) -> bool:
    owner = module.get_submodule(name.rpartition(".")[0])
    return not isinstance(owner, nn.Linear) and type(owner).__name__ == "Linear4bit"
