"""Encoders of tiny random weights: the same numbers as the library's own way, and strict reading."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer, Dinov2Model

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.evaluation.encoders import load_clip, load_dino
from pigeon_cli.evaluation.lpips import load_lpips
from pigeon_cli.history.preprocess import to_pixels
from tests.tiny_encoders import write_random_lpips, write_tiny_clip, write_tiny_dino

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def lpips_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_lpips(tmp_path_factory.mktemp("lpips"))


def gradient(shade: int) -> Image.Image:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    return Image.fromarray(
        np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), shade, np.uint8)], 2)
    )


def test_clip_gives_the_features_of_the_whole_model(clip_folder: Path) -> None:
    encoder = load_clip(clip_folder, CPU)
    model, tokenizer = CLIPModel.from_pretrained(clip_folder), CLIPTokenizer.from_pretrained(clip_folder)
    pixels = torch.from_numpy(np.stack([to_pixels(gradient(shade), 32) for shade in (0, 200)]))
    with torch.no_grad():
        whole = model(pixel_values=pixels, **tokenizer(["red fox"], return_tensors="pt"))
    images, words = (
        functional.normalize(each, dim=-1)
        for each in (encoder.images([gradient(0), gradient(200)]), encoder.words("red fox"))
    )
    assert torch.allclose(images, whole.image_embeds, atol=1e-6)
    assert torch.allclose(words, whole.text_embeds, atol=1e-6)
    assert not torch.allclose(images[0], images[1], atol=1e-3)


def test_words_beyond_the_models_length_are_cut(clip_folder: Path) -> None:
    encoder = load_clip(clip_folder, CPU)
    assert torch.equal(encoder.words("abcdefghijklmnop"), encoder.words("abcdefghijzzzzzz"))
    assert not torch.equal(encoder.words("abc"), encoder.words("abd"))


def test_dino_gives_the_normalised_class_token_of_the_middle(dino_folder: Path) -> None:
    encoder, model = load_dino(dino_folder, CPU), Dinov2Model.from_pretrained(dino_folder)
    plain = Image.new("RGB", (400, 300), (124, 116, 104))
    pixels = torch.tensor([124 / 255, 116 / 255, 104 / 255]).sub(torch.tensor([0.485, 0.456, 0.406]))
    pixels = (pixels / torch.tensor([0.229, 0.224, 0.225]))[None, :, None, None].expand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(encoder.images([plain]), model(pixels).last_hidden_state[:, 0], atol=1e-5)
    framed = Image.new("RGB", (400, 300), "red")
    # The middle 224 of 256 pixels: 37 pixels left and right of a 4:3 picture stay outside at least.
    framed.paste(plain.crop((0, 0, 320, 300)), (40, 0))
    assert torch.allclose(encoder.images([framed]), encoder.images([plain]), atol=1e-5)


@pytest.mark.parametrize("damage", ["missing", "shape", "extra", "absent", "pickle"])
def test_an_encoder_is_read_strictly(clip_folder: Path, tmp_path: Path, damage: str) -> None:
    for name in ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    tensors = load_file(clip_folder / "model.safetensors")
    if damage == "missing":
        del tensors["visual_projection.weight"]
    elif damage == "shape":
        tensors["visual_projection.weight"] = torch.zeros(9, 16)
    elif damage == "extra":
        tensors |= {"text_model.embeddings.position_ids": torch.arange(12)[None]}
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        load_clip(tmp_path, CPU)
        tensors["another.weight"] = torch.zeros(1)
    if damage in ("missing", "shape", "extra"):
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    elif damage == "pickle":
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=tmp_path.name):
        load_clip(tmp_path, CPU)


def expected_lpips(folder: Path, first: Tensor, second: Tensor) -> float:
    """The sum of the paper's equation 1, one position after another."""
    weights, linear = torch.load(folder / "alexnet.pth"), torch.load(folder / "lpips.pth")
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    one, other = ((each - mean[:, None, None]) / deviation[:, None, None] for each in (first, second))
    total = 0.0
    for number, (place, stride, padding) in enumerate([(0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)]):
        if number in (1, 2):
            one, other = (functional.max_pool2d(each, 3, 2) for each in (one, other))
        kernel, bias = weights[f"features.{place}.weight"], weights[f"features.{place}.bias"]
        one, other = (functional.conv2d(each, kernel, bias, stride, padding).relu() for each in (one, other))
        one_unit, other_unit = (each[0] / each[0].norm(dim=0).clamp_min(1e-10) for each in (one, other))
        channels = linear[f"lin{number}.model.1.weight"][0, :, 0, 0]
        total += float((channels @ ((one_unit - other_unit) ** 2).flatten(1)).mean())
    return total


def test_lpips_is_the_papers_sum(lpips_folder: Path) -> None:
    network, digest = load_lpips(lpips_folder, CPU)
    generator = torch.Generator().manual_seed(4)
    first, second = torch.rand(2, 1, 3, 96, 96, generator=generator)
    assert len(digest) == 64 and isinstance(network, nn.Module)
    one, other = network(first), network(second)
    assert network.distance(one, one).item() == 0
    # The published shift and scale are those of ImageNet, rounded to three digits.
    assert network.distance(one, other).item() == pytest.approx(expected_lpips(lpips_folder, first, second), rel=5e-3)


def test_a_pickle_that_runs_code_is_refused(lpips_folder: Path, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(tmp_path / "ran"), "w")

    (tmp_path / "alexnet.pth").write_bytes(pickle.dumps(Malicious(), protocol=2))
    (tmp_path / "lpips.pth").write_bytes((lpips_folder / "lpips.pth").read_bytes())
    with pytest.raises(WeightsError, match=r"alexnet\.pth"):
        load_lpips(tmp_path, CPU)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "alexnet.pth").unlink()
    with pytest.raises(WeightsError, match=r"lacks alexnet\.pth"):
        load_lpips(tmp_path, CPU)
