"""A small model in the published layout that draws: every part two layers deep, real wordings, random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file

from pigeon_cli.core.configs import (
    AdapterConfig,
    EmbeddingDecoderConfig,
    LanguageConfig,
    MaskGeneratorConfig,
    ModelSpec,
    SamplingConfig,
    VisualTokenizerConfig,
)
from pigeon_cli.core.vocabulary import Vocabulary
from pigeon_cli.models.encoders import build_clip
from pigeon_cli.pipeline.prompt import prompt_template
from pigeon_cli.weights.checkpoint import sha256_of
from pigeon_cli.weights.manifest import Manifest, StoredFile, complete
from tests.keymaps.official_files import read_back, tiny_spec, write_model, write_stage_one, write_tensors
from tests.tiny_model import text_model

CODES, WIDTH, PATCHES, DEPTH = 64, 32, 16, 2
TITLES = ("The Matrix", "Toy Story", "Heat", "Casino", "Alien")
IMAGE = 64
"""Pixels on a side of what it draws, where the published model draws 1024."""


def write_published(folder: Path) -> Path:
    """Model and alignment below ``folder``: half-precision safetensors as ``pigeon download`` leaves them."""
    model = folder / "model"
    text = _text_model()
    spec = published_spec(int(sentencepiece.SentencePieceProcessor(model_proto=text).get_piece_size()))
    write_model(model, ".safetensors", sharded=True, spec=spec)
    (model / "language_model" / "tokenizer.model").write_bytes(text)
    write_stage_one(model / "alignment" / "checkpoint-1", ".safetensors", spec)
    for path in model.rglob("*.safetensors"):
        kind = torch.float32 if "vae" in path.parts else torch.float16 if "unet" in path.parts else torch.bfloat16
        write_tensors(path, {key: _lively(key, tensor).to(kind) for key, tensor in read_back(path).items()})
    return model


def published_spec(text_size: int) -> ModelSpec:
    """The shape of LaVIT-7B-v2 in small: one reference slot, beams, no scorer, drawn at any aspect."""
    spec = tiny_spec()
    return replace(
        spec,
        vocabulary=Vocabulary(text_size, CODES),
        tokenizer=VisualTokenizerConfig(56, 14, WIDTH, DEPTH, 2, DEPTH, 2, CODES, 8),
        decoder=EmbeddingDecoderConfig(8, WIDTH, DEPTH, 2, PATCHES, (6, 10), 10),
        mask_generator=MaskGeneratorConfig(WIDTH, 4, 1, 24, 18),
        adapter=AdapterConfig(16, 12, WIDTH),
        language=LanguageConfig(WIDTH, 64, DEPTH, 4, 1024, lora_rank=3, lora_alpha=6),
        diffusion=replace(spec.diffusion, image_size=IMAGE),
        sampling=SamplingConfig(beams=2, minimum_tokens=4, maximum_tokens=12, reference_guidance=4.0),
    )


def _lively(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Logits that differ, and a selector that wavers, so that images keep different tokens."""
    return tensor * 8 if key in ("lm_head.weight", "token_predictor.out_conv.4.weight") else tensor


def _text_model() -> bytes:
    lines = [line for name in ("sticker", "poster") for line in prompt_template(name).splitlines()]
    return text_model([*lines, *TITLES, "red fox", "happy cat"], 480)


def write_clip(folder: Path) -> None:
    """A CLIP of a few numbers as ``pigeon download clip-vit-h-14`` leaves one, manifest included."""
    folder.mkdir(parents=True)
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = {**sizes, **ends, "vocab_size": len(words), "max_position_embeddings": 16, "projection_dim": 8}
    vision = {**sizes, "image_size": 32, "patch_size": 16, "projection_dim": 8}
    settings = {"text_config": text, "vision_config": vision, "projection_dim": 8}
    (folder / "config.json").write_text(json.dumps(settings))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(dict(build_clip(settings).state_dict()), folder / "model.safetensors")
    files = tuple(StoredFile(path.name, path.stat().st_size, sha256_of(path), ()) for path in sorted(folder.iterdir()))
    complete(folder, Manifest(folder.name, "hub:test/clip@main", "", None, files))
