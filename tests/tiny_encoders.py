"""CLIP and DINOv2 of random weights in the hub's layout, and the two files of LPIPS."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

from pigeon_cli.evaluation.lpips import Lpips

VOCABULARY = ["<|startoftext|>", "<|endoftext|>", *(chr(letter) for letter in range(ord("a"), ord("z") + 1))]
VOCABULARY += [f"{letter}</w>" for letter in VOCABULARY[2:]]
TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def write_tiny_clip(folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = {**TOWER, "vocab_size": len(VOCABULARY), "max_position_embeddings": 12, "bos_token_id": 0}
        text |= {"eos_token_id": 1, "pad_token_id": 1}
        vision = {**TOWER, "image_size": 32, "patch_size": 16}
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({piece: place for place, piece in enumerate(VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    names = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "unk_token": "<|endoftext|>", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def write_tiny_dino(folder: Path) -> Path:
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, image_size=224, patch_size=56
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Dinov2Model(config).save_pretrained(folder)
    return folder


def write_random_lpips(folder: Path) -> Path:
    """Pickles with the names of the published files, a classifier of AlexNet among them."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Lpips()
        backbone = {f"features.{name}": tensor for name, tensor in network.features.state_dict().items()}
        torch.save({**backbone, "classifier.1.weight": torch.zeros(1)}, folder / "alexnet.pth")
        linear = {f"lin{n}.model.1.weight": torch.rand_like(each) for n, each in enumerate(network.weights)}
        torch.save(linear, folder / "lpips.pth")
    return folder
