"""09: three guided DDIM steps of a tiny UNet, and the VAE (NOTES.md section 2.14).

Images may differ by one at rounding edges; on one machine the recorded program differs from itself by as much.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pigeon_cli.core.configs import DiffusionConfig
from pigeon_cli.models.diffusion import build_scheduler, build_unet, build_vae, decode_latents, denoise, restore_latents
from pigeon_cli.models.embedding_decoder import DecodedCondition
from tests.parity.golden import GoldenFile, Goldens, assert_close_absmax, fill, normal_noise
from tests.parity.test_prompt import decode_rows, embedding_decoder, image_codes

STEPS, GUIDANCE, SIZE = 3, 7.0, (64, 64)


@pytest.fixture(scope="module")
def recorded(goldens: Goldens) -> GoldenFile:
    return goldens.load("09_diffusion")


@pytest.fixture(scope="module")
def config(goldens: Goldens) -> DiffusionConfig:
    parts = goldens.config
    return DiffusionConfig(unet=parts["unet"], vae=parts["vae"], scheduler=parts["sched"], steps=STEPS)


@pytest.fixture(scope="module")
def condition(goldens: Goldens) -> DecodedCondition:
    codes = image_codes(goldens)
    rows = [torch.tensor(codes[image]) - goldens.vocabulary.first_code for image in CONDITION_IMAGES]
    return decode_rows(goldens, embedding_decoder(goldens), rows)


@pytest.fixture(scope="module")
def vae(goldens: Goldens, config: DiffusionConfig) -> Any:
    module = build_vae(config).eval()
    fill(module, "vae", goldens.seed)
    return module


CONDITION_IMAGES = (0, 5)
"""Found by their pooled vectors: the recording does not name them."""


def test_condition(recorded: GoldenFile, condition: DecodedCondition) -> None:
    assert_close_absmax(condition.context.mean(1), recorded["prompt_embeds_mean"])
    assert_close_absmax(condition.pooled, recorded["pooled"])


def test_initial_noise(goldens: Goldens, recorded: GoldenFile) -> None:
    assert np.array_equal(normal_noise(goldens.seed, "latents", (2, 4, 8, 8)), recorded["latents0"])


def test_denoising(
    goldens: Goldens, recorded: GoldenFile, config: DiffusionConfig, condition: DecodedCondition, vae: Any
) -> None:
    unet = build_unet(config, 2048).eval()
    fill(unet, "unet", goldens.seed)
    outputs: list[Tensor] = []
    times: list[int] = []

    def listen(module: Any, arguments: Any, output: Any) -> None:
        outputs.append(output[0].detach())
        times.append(int(arguments[1]))

    handle = unet.register_forward_hook(listen)
    latents = denoise(
        unet,
        build_scheduler(config),
        condition.context,
        condition.pooled,
        recorded.tensor("latents0"),
        steps=STEPS,
        guidance=GUIDANCE,
        size=SIZE,
    )
    handle.remove()
    assert times == recorded["timesteps"].tolist()
    for step, output in enumerate(outputs):
        assert_close_absmax(output, recorded[f"unet_out_step{step}"])
    assert_close_absmax(restore_latents(vae, latents), recorded["latents_final_div_scaling"])


def test_decoding(recorded: GoldenFile, vae: Any) -> None:
    latents = recorded.tensor("latents_final_div_scaling") * vae.config.scaling_factor
    with torch.no_grad():
        recorded.check_large(vae.decode(restore_latents(vae, latents)).sample, "vae_sample")
    pixels = decode_latents(vae, latents)
    assert pixels.dtype == torch.uint8
    for number in range(2):
        difference = np.abs(pixels[number].numpy().astype(int) - recorded[f"image{number}_u8"].astype(int))
        assert difference.max() <= 1
