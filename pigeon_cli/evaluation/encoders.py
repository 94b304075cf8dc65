"""Image encoders of the paper's metrics, read from local folders through transformers; nothing is fetched.

CS and CIS: OpenCLIP ViT-H/14 (laion2b). DIS: DINOv2 large, its normalised class token. Images are RGB; every encoder
brings them to its own size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPModel, Dinov2Model, PreTrainedModel, PreTrainedTokenizerBase

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.history.preprocess import to_pixels
from pigeon_cli.models.encoders import image_features, word_features
from pigeon_cli.models.small_pictures import as_pixels
from pigeon_cli.weights.checkpoint import sha256_of

DINO_SIDE, DINO_CROP = 256, 224
"""DINOv2's own evaluation: shorter side to 256 bicubic, then the middle 224 (Oquab et al. 2023)."""
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION: Final = (0.229, 0.224, 0.225)


IGNORED: Final = ".position_ids"
"""Older files of CLIP store these counting numbers."""


class ImageEncoder(Protocol):
    """Images to feature vectors."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weights files."""

    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images to float32 [N, D] on the CPU."""


class ClipEncoder:
    """CLIP, images and words in one space."""

    def __init__(self, model: CLIPModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str) -> None:
        # transformers types the parts of a configuration as dictionaries or nothing.
        self._model: Any = model
        self._tokenizer, self.fingerprint = tokenizer, fingerprint

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images to float32 [N, D] on the CPU."""
        side = self._model.config.vision_config.image_size
        pixels = torch.from_numpy(np.stack([to_pixels(image, side) for image in images]))
        return image_features(self._model, pixels).cpu()

    @torch.inference_mode()
    def words(self, text: str) -> Tensor:
        """One text, cut at the model's length, to float32 [1, D] on the CPU."""
        longest = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer([text], truncation=True, max_length=longest, return_tensors="pt")
        return word_features(self._model, tokens["input_ids"], tokens["attention_mask"]).cpu()


class DinoEncoder:
    """DINOv2, images alone."""

    def __init__(self, model: Dinov2Model, fingerprint: str) -> None:
        self._model, self.fingerprint = model, fingerprint

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images to float32 [N, D] on the CPU."""
        pixels = torch.stack([_dino_pixels(image) for image in images]).to(self._model.device)
        return self._model(pixel_values=pixels).pooler_output.float().cpu()


def load_clip(folder: Path, device: torch.device) -> ClipEncoder:
    """A ``CLIPModel`` folder of the hub's layout; raises :class:`WeightsError` for any other."""
    model = _load(CLIPModel, folder, device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise _unusable(folder, error) from error
    return ClipEncoder(model, tokenizer, fingerprint_of(folder))


def load_dino(folder: Path, device: torch.device) -> DinoEncoder:
    """A ``Dinov2Model`` folder of the hub's layout; raises :class:`WeightsError` for any other."""
    return DinoEncoder(_load(Dinov2Model, folder, device), fingerprint_of(folder))


def fingerprint_of(folder: Path) -> str:
    """SHA-256 over names and contents of the safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    return hashlib.sha256("".join(f"{path.name} {sha256_of(path)}\n" for path in files).encode()).hexdigest()


def _load(kind: type[PreTrainedModel], folder: Path, device: torch.device) -> Any:
    """A frozen float32 model, every tensor of which is in the folder."""
    try:
        loaded: Any = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _unusable(folder, error) from error
    model, info = loaded
    wrong = [f"it lacks {name}" for name in info["missing_keys"]]
    wrong += [f"the shape of {name} is another" for name in info["mismatched_keys"]]
    wrong += [f"{name} is unknown" for name in info["unexpected_keys"] if not name.endswith(IGNORED)]
    if wrong:
        raise WeightsError(f"the weights in {folder} do not fit their config.json: {wrong[0]}", "fetch them again")
    frozen: nn.Module = model.eval().requires_grad_(False).to(device)
    return frozen


def _unusable(folder: Path, error: Exception) -> WeightsError:
    reason = str(error).strip().partition("\n")[0]
    return WeightsError(
        f"cannot read an encoder from {folder}: {reason}", "name a folder with config.json and safetensors"
    )


def _dino_pixels(image: Image.Image) -> Tensor:
    scale = DINO_SIDE / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - DINO_CROP) // 2, (height - DINO_CROP) // 2
    cut = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + DINO_CROP, top + DINO_CROP))
    mean, deviation = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return (as_pixels(cut) - mean) / deviation
