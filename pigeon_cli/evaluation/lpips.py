"""LPIPS (Zhang et al. 2018) on AlexNet, written from the paper: its weights are the user's to bring.

The package ``lpips`` needs torchvision, which this project does not pin; the network is five convolutions. The folder
holds ``alexnet.pth`` (torchvision's IMAGENET1K_V1) and ``lpips.pth`` (the package's ``v0.1/alex.pth``), or the same
tensors as ``.safetensors``. Pickles are read with ``weights_only``. Not run with the published weights yet: tested
against the paper's sum on random ones.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.checkpoint import load_tensors, read_part, sha256_of

SHIFT: Final = (-0.030, -0.088, -0.188)
SCALE: Final = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for inputs in -1..1."""
WIDTHS: Final = (64, 192, 384, 256, 256)
TAPS: Final = (1, 4, 7, 9, 11)
"""Places of the five activations that are compared, among AlexNet's layers."""


class Lpips(nn.Module):
    """Distance of images; parameters are named as in the two published files."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.weights = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in WIDTHS)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images float [N, 3, H, W] in 0..1 to the five activations that are compared, of unit length per place."""
        values, taps = (2 * images - 1 - self.shift) / self.scale, []
        for place, layer in enumerate(self.features):
            values = layer(values)
            if place in TAPS:
                taps.append(functional.normalize(values, dim=1, eps=1e-10))
        return taps

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """Of activations, pair by pair or one against N: [N], 0 for the same image."""
        parts = [((a - b) ** 2 * w).sum(1).mean((1, 2)) for a, b, w in zip(first, second, self.weights, strict=True)]
        return torch.stack(parts).sum(0)


def load_lpips(folder: Path, device: torch.device) -> tuple[Lpips, str]:
    """The network of ``folder``, frozen, and a hash of its weights; raises :class:`WeightsError`."""
    network = Lpips()
    files = [_file(folder, stem) for stem in ("alexnet", "lpips")]
    backbone, linear = map(_read, files)
    classifier = frozenset(name for name in backbone if name.startswith("classifier."))
    load_tensors({f"features.{k}": v for k, v in network.features.state_dict().items()}, backbone, files[0], classifier)
    load_tensors({f"lin{n}.model.1.weight": weight for n, weight in enumerate(network.weights)}, linear, files[1])
    digest = hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()
    return network.eval().requires_grad_(False).to(device), digest


def _file(folder: Path, stem: str) -> Path:
    for suffix in (".safetensors", ".pth"):
        if (path := folder / f"{stem}{suffix}").is_file():
            return path
    raise WeightsError(f"{folder} lacks {stem}.pth", "put both files there: alexnet.pth and lpips.pth")


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_part(path)
    try:
        tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"cannot read the weights file {path}: {error}", "fetch the published file again") from error
    return tensors
