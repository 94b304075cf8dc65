"""Which instruments can be had: weights from the options' folders or from the download cache, the rest is named.

What reads encoders is imported where there are weights: transformers takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.core.evaluation import NotComputed
from pigeon_cli.evaluation.instruments import FeatureInstrument, Instrument, PairInstrument, PairMetric, WordInstrument
from pigeon_cli.metrics.structure import pyramid, structural_similarity
from pigeon_cli.weights.cache import PartFolder, cache_root

CLIP_PART: Final = "clip-vit-h-14"
DINO_PART: Final = "dinov2-large"
INCEPTION: Final = NotComputed(
    "FID with Inception-v3",
    "no well-kept implementation without torchvision; FD is the same formula on the features of CLIP and DINOv2, whose "
    "figures must not be compared with published FID",
)


@dataclass(frozen=True)
class WeightFolders:
    """What the user named; ``None`` looks into the download cache."""

    clip: Path | None = None
    dino: Path | None = None
    lpips: Path | None = None


@dataclass
class Toolbox:
    """The instruments of one evaluation, in the order of the table's columns."""

    instruments: list[Instrument] = field(default_factory=list)
    distances: dict[str, FeatureInstrument] = field(default_factory=dict)
    """Names of encoders to the instruments whose features the distance of sets is computed from."""
    not_computed: list[NotComputed] = field(default_factory=list)
    encoders: dict[str, str] = field(default_factory=dict)


def open_toolbox(folders: WeightFolders, device: torch.device) -> Toolbox:
    """Loads what is there; raises :class:`WeightsError` for a named folder that is none or is damaged."""
    box = Toolbox()
    _add_clip(box, folders.clip, device)
    _add_dino(box, folders.dino, device)
    _add_lpips(box, folders.lpips, device)
    says = "structural similarity of pixels, 1 for the same image"
    metrics = (PairMetric("SSIM", True, says), PairMetric("MS-SSIM", True, f"{says}, five scales"))
    box.instruments.append(PairInstrument(metrics, pyramid, structural_similarity, device))
    box.not_computed.append(INCEPTION)
    return box


def _add_clip(box: Toolbox, named: Path | None, device: torch.device) -> None:
    folder = _find(named, CLIP_PART)
    if folder is None:
        box.not_computed += [_absent(metric, CLIP_PART, "--clip") for metric in ("CS", "CIS", "FD CLIP")]
        return
    from pigeon_cli.evaluation.encoders import load_clip

    encoder = load_clip(folder, device)
    box.encoders["CLIP"] = encoder.fingerprint
    box.distances["CLIP"] = FeatureInstrument("CIS", encoder, "100 * cosine of CLIP features, image with image")
    box.instruments += [WordInstrument(encoder), box.distances["CLIP"]]


def _add_dino(box: Toolbox, named: Path | None, device: torch.device) -> None:
    folder = _find(named, DINO_PART)
    if folder is None:
        box.not_computed += [_absent(metric, DINO_PART, "--dino") for metric in ("DIS", "FD DINO")]
        return
    from pigeon_cli.evaluation.encoders import load_dino

    encoder = load_dino(folder, device)
    box.encoders["DINO"] = encoder.fingerprint
    box.distances["DINO"] = FeatureInstrument("DIS", encoder, "100 * cosine of DINOv2 features, image with image")
    box.instruments.append(box.distances["DINO"])


def _add_lpips(box: Toolbox, named: Path | None, device: torch.device) -> None:
    if named is None:
        reason = "no weights: name a folder with alexnet.pth and lpips.pth by --lpips"
        box.not_computed.append(NotComputed("LPIPS", reason))
        return
    from pigeon_cli.evaluation.lpips import load_lpips

    network, box.encoders["LPIPS"] = load_lpips(_find(named, "") or named, device)
    metric = PairMetric("LPIPS", False, "distance of AlexNet features, 0 for the same image")
    box.instruments.append(
        PairInstrument((metric,), network, lambda one, other: (network.distance(one, other),), device)
    )


def _find(named: Path | None, part: str) -> Path | None:
    if named is None:
        folder = PartFolder(cache_root(), part)
        return folder.path if folder.manifest else None
    if not named.is_dir():
        raise WeightsError(f"there is no folder of weights {named}", "check the path, or leave the option out")
    return named


def _absent(metric: str, part: str, option: str) -> NotComputed:
    return NotComputed(metric, f"no weights: type pigeon download {part}, or name a folder by {option}")
