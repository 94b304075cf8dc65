"""What several stages share: an edge loss, and sheets of pictures to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as functional
from PIL import Image
from torch import Tensor

from pigeon_cli.report.sheet import make_sheet


def gradient_loss(drawn: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute difference of horizontal and vertical differences of [B,3,H,W] images at ``scales`` sizes."""
    total = drawn.new_zeros(())
    for _ in range(scales):
        for axis in (-1, -2):
            total = total + (drawn.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
        drawn, target = functional.avg_pool2d(drawn, 2), functional.avg_pool2d(target, 2)
    return total / scales


def to_images(images: Tensor) -> list[Image.Image]:
    """Float [B,3,H,W] in 0..1 to PIL images."""
    array = (images.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one) for one in array]


def save_tensor_sheet(path: Path, columns: Sequence[Tensor], headers: Sequence[str]) -> None:
    """One PNG with a column per entry of ``columns`` ([B,3,H,W] in 0..1) and a row per image."""
    rows = [list(row) for row in zip(*map(to_images, columns), strict=True)]
    make_sheet(rows, headers=list(headers)).save(path)
