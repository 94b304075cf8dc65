"""A Stable Diffusion folder of random weights with an IP-Adapter in it, 16 x 16 pixels."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.tiny_encoders import TOWER, VOCABULARY, write_tiny_clip

WIDTH, EMBEDDED, PROMPT_TOKENS = 16, 8, 4


def write_tiny_pipeline(folder: Path) -> Path:
    """Pipeline, ``ip_adapter/ip-adapter.safetensors`` and ``ip_adapter/image_encoder``."""
    tokenizer = CLIPTokenizer.from_pretrained(write_tiny_clip(folder / "clip"), model_max_length=77)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = _unet()
        text = CLIPTextConfig(**TOWER, vocab_size=len(VOCABULARY), bos_token_id=0, eos_token_id=1, pad_token_id=1)
        vision = CLIPVisionConfig(**TOWER, image_size=32, patch_size=16, projection_dim=EMBEDDED)
        StableDiffusionPipeline(
            vae=AutoencoderKL(
                block_out_channels=[8, 8], down_block_types=["DownEncoderBlock2D"] * 2,
                up_block_types=["UpDecoderBlock2D"] * 2, norm_num_groups=4, sample_size=16,
            ),
            text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, scheduler=DDIMScheduler(),
            safety_checker=None, feature_extractor=CLIPImageProcessor(size=32, crop_size=32),
            requires_safety_checker=False,
        ).save_pretrained(folder)  # fmt: skip
        CLIPVisionModelWithProjection(vision).save_pretrained(folder / "ip_adapter" / "image_encoder")
        save_file(_adapter(unet), folder / "ip_adapter" / "ip-adapter.safetensors")
    return folder


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def _adapter(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Tensors under their published names: every second attention of the UNet attends to the image's tokens too."""
    projection, norm = nn.Linear(EMBEDDED, PROMPT_TOKENS * WIDTH), nn.LayerNorm(WIDTH)
    tensors = {f"image_proj.proj.{name}": value for name, value in projection.state_dict().items()}
    tensors |= {f"image_proj.norm.{name}": value for name, value in norm.state_dict().items()}
    for place, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            for part in ("to_k_ip", "to_v_ip"):
                tensors[f"ip_adapter.{place}.{part}.weight"] = torch.randn(width, WIDTH)
    return tensors
