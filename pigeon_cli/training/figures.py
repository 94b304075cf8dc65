"""What several stages share: an edge loss, and sheets of pictures to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as functional
from PIL import Image
from torch import Tensor, nn

from pigeon_cli.report.sheet import make_sheet


class PixelHead(nn.Module):
    """Throwaway head of a stage: context [B, Q, C] to RGB [B, 3, H, W], one linear map per query."""

    def __init__(self, width: int, grid: int, image_size: int) -> None:
        super().__init__()
        self.grid = grid
        self.pixels = nn.Linear(width, 3 * (image_size // grid) ** 2)
        self.shuffle = nn.PixelShuffle(image_size // grid)

    def forward(self, context: Tensor) -> Tensor:
        values = self.pixels(context).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        images: Tensor = self.shuffle(values)
        return images


def gradient_loss(drawn: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute difference of horizontal and vertical differences of [B,3,H,W] images at ``scales`` sizes."""
    total = drawn.new_zeros(())
    for _ in range(scales):
        for axis in (-1, -2):
            total = total + (drawn.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
        drawn, target = functional.avg_pool2d(drawn, 2), functional.avg_pool2d(target, 2)
    return total / scales


def psnr(drawn: Tensor, wanted: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0..1."""
    return float(-10 * torch.log10((drawn.clamp(0, 1) - wanted).square().mean()))


def to_images(images: Tensor) -> list[Image.Image]:
    """Float [B,3,H,W] in 0..1 to PIL images."""
    array = (images.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one) for one in array]


def save_tensor_sheet(path: Path, columns: Sequence[Tensor], headers: Sequence[str]) -> None:
    """One PNG with a column per entry of ``columns`` ([B,3,H,W] in 0..1) and a row per image."""
    rows = [list(row) for row in zip(*map(to_images, columns), strict=True)]
    make_sheet(rows, headers=list(headers)).save(path)
