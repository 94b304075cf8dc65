"""A complete model folder of random weights, small enough to be made for every test session."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import nn

from pigeon_cli.core.configs import (
    AdapterConfig,
    DiffusionConfig,
    EmbeddingDecoderConfig,
    LanguageConfig,
    MaskGeneratorConfig,
    ModelSpec,
    SamplingConfig,
    ScorerConfig,
    TasteConfig,
    TranslatorConfig,
    VisualTokenizerConfig,
)
from pigeon_cli.core.vocabulary import Vocabulary
from pigeon_cli.models.adapter import Adapter
from pigeon_cli.models.diffusion import build_unet, build_vae
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.language import build_language_model
from pigeon_cli.models.mask_generator import MaskGenerator
from pigeon_cli.models.scorer import Scorer
from pigeon_cli.models.taste import TasteReader
from pigeon_cli.models.translator import Translator
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.weights.checkpoint import save_part
from pigeon_cli.weights.spec_file import spec_text
from pigeon_cli.weights.store import ModelFolder

CODES, WIDTH, IMAGE, STYLE_TOKENS, TASTE_WIDTH = 64, 32, 32, 2, 8
WORDS = ("red fox", "happy cat", "green leaf", "blue whale", "grinning face", "birthday cake", "fire engine")


def tiny_spec(text_size: int) -> ModelSpec:
    """``mini`` in small: 32 x 32 pixels, 16 patches and 2 style tokens, 64 codes, 16 of them for style."""
    return ModelSpec(
        name="mini",
        vocabulary=Vocabulary(text_size, CODES),
        tokenizer=VisualTokenizerConfig(
            IMAGE, 8, WIDTH, 1, 2, 1, 2, CODES, 8, mlp_ratio=2.0, style_tokens=STYLE_TOKENS, style_codes=16
        ),
        decoder=EmbeddingDecoderConfig(8, WIDTH, 1, 2, 16, (8, 24), WIDTH, STYLE_TOKENS, mlp_ratio=2.0),
        mask_generator=MaskGeneratorConfig(WIDTH, 2, 1, WIDTH, 18 + STYLE_TOKENS, 0.0, 6, 0.07, 0.1),
        adapter=AdapterConfig(WIDTH, WIDTH, WIDTH, 0.0, 16),
        language=LanguageConfig(WIDTH, 64, 2, 2, 256, tie_word_embeddings=True, lora_rank=4, lora_dropout=0.0),
        diffusion=_tiny_diffusion(),
        sampling=SamplingConfig(1, 1.0, 50, 1.5, 6, 18 + STYLE_TOKENS),
        scorer=ScorerConfig(WIDTH, 16, 16, 1, 2, text_size),
        taste=TasteConfig(WIDTH, 16, TASTE_WIDTH),
        translator=TranslatorConfig(8, STYLE_TOKENS, 16, 16, 1, 2, passes=2, mlp_ratio=2.0),
        reference_slots=16,
        repack_reference=False,
        history_markers=True,
        place_stride=8,
        default_mask="learned",
    )


def _tiny_diffusion() -> DiffusionConfig:
    unet: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 12,
        "out_channels": 4,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "mid_block_type": None,
        "block_out_channels": [16, 32],
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": [1, 2],
        "norm_num_groups": 8,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
    }
    vae: dict[str, Any] = {
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "block_out_channels": [8, 8, 16],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": IMAGE,
        "scaling_factor": 1.0,
        "mid_block_add_attention": False,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    scheduler = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    return DiffusionConfig(
        unet,
        vae,
        scheduler,
        steps=2,
        guidance=2.0,
        image_size=IMAGE,
        grid_channels=4,
        reference_channels=4,
        taste_width=TASTE_WIDTH,
        history_pictures=3,
        history_widths=(8, 16, 16),
        history_plain=True,
        taste_guidance=1.5,
    )


def write_tiny_model(path: Path, seed: int = 0) -> ModelFolder:
    """Write config, text model and all parts to ``path``."""
    path.mkdir(parents=True, exist_ok=True)
    folder = ModelFolder(path)
    text = text_model(WORDS, 320)
    folder.text_model.write_bytes(text)
    spec = tiny_spec(int(sentencepiece.SentencePieceProcessor(model_proto=text).get_piece_size()))
    (path / "config.json").write_text(spec_text(spec), encoding="utf-8")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, tensors in _parts(spec).items():
            save_part(folder.part(name), tensors, torch.float32)
    return folder


def _parts(spec: ModelSpec) -> dict[str, dict[str, torch.Tensor]]:
    assert spec.scorer is not None and spec.translator is not None and spec.taste is not None
    language = build_language_model(spec.language, spec.vocabulary)
    with torch.no_grad():
        # Wide enough that codes differ in likelihood, and so between prompts.
        language.model.embed_tokens.weight.mul_(15)
    modules: dict[str, nn.Module] = {
        "tokenizer": VisualTokenizer(spec.tokenizer),
        "decoder": EmbeddingDecoder(spec.decoder),
        "vae": build_vae(spec.diffusion),
        "unet": build_unet(spec.diffusion, spec.decoder.context_width),
        "translator": Translator(spec.translator),
        "language": language,
        "mask_generator": MaskGenerator(spec.mask_generator),
        "adapter": Adapter(spec.adapter),
        "base_adapter": Adapter(spec.adapter),
        "scorer": Scorer(spec.scorer),
        "taste": TasteReader(spec.taste),
    }
    states = {name: dict(module.state_dict()) for name, module in modules.items()}
    del states["language"]["lm_head.weight"]
    # A wavering selector, so that the images of the tests keep different numbers of tokens.
    states["tokenizer"]["selector.out_conv.4.weight"] *= 20
    states["lora"] = _lora(spec.language)
    for name in ("tells", "recolours"):
        states["unet"][f"{name}.weight"].normal_()
    return states


def _lora(config: LanguageConfig) -> dict[str, torch.Tensor]:
    tensors = {}
    for layer in range(config.layers):
        for target in config.lora_targets:
            key = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(config.lora_rank, config.hidden_size)
            tensors[f"{key}.lora_B.weight"] = torch.randn(config.hidden_size, config.lora_rank) * 0.3
    return tensors


def text_model(lines: Sequence[str], pieces: int) -> bytes:
    """A SentencePiece model of ``pieces`` pieces at most."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=pieces,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
