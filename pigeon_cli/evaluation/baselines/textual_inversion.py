"""Textual inversion (Gal et al. 2023): one new word per history, learned from it, then used in the prompt.

Not run with real weights: tested on tiny random ones. ``--model`` is a Stable Diffusion folder of diffusers' layout.
The reference image is not read: what is asked for comes from words alone.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pigeon_cli.evaluation.baselines import STATUS
from pigeon_cli.evaluation.baselines.stable_diffusion import GUIDANCE, Pipeline, add_steps, folder_hashes, load_pipeline
from pigeon_cli.evaluation.drawing import RowMaker, main
from pigeon_cli.evaluation.pictures import Shown

WORD: Final = "<taste>"
PROMPT: Final = f"a picture in the style of {WORD}"
START: Final = "style"
"""The word whose embedding the new one begins as."""
LEARNING_RATE: Final = 5e-3
LEARNING_STEPS: Final = 1000


class TextualInversion:
    """A pipeline whose text encoder has one more word."""

    def __init__(self, pipeline: Pipeline, steps: int, learning_steps: int) -> None:
        self._pipeline, self._steps, self._learning_steps = pipeline, steps, learning_steps
        self._noise = DDPMScheduler.from_config(pipeline.scheduler.config)
        tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
        begins = tokenizer(START, add_special_tokens=False).input_ids
        tokenizer.add_tokens(WORD)
        encoder.resize_token_embeddings(len(tokenizer))
        self._place: int = tokenizer.convert_tokens_to_ids(WORD)
        self._start = encoder.get_input_embeddings().weight[begins].mean(0).detach().clone()

    def draw(self, shown: Shown, stream: torch.Generator) -> Image.Image | None:
        """Learns the history's word and draws with it; ``None`` without a history."""
        if not shown.history:
            return None
        self.learn(shown.history, stream)
        with torch.inference_mode():
            drawn: Image.Image = self._pipeline(
                prompt=f"{shown.words}, {PROMPT}" if shown.words else PROMPT,
                guidance_scale=GUIDANCE,
                num_inference_steps=self._steps,
                generator=stream,
            ).images[0]
        return drawn

    def learn(self, history: tuple[Image.Image, ...], stream: torch.Generator) -> list[float]:
        """Fits the word to ``history`` from its start, one random image and noise a step; returns the losses."""
        table = self._pipeline.text_encoder.get_input_embeddings().weight
        with torch.no_grad():
            table[self._place] = self._start
        vector = torch.nn.Parameter(self._start.clone())
        optimizer = torch.optim.Adam([vector], lr=LEARNING_RATE)
        latents, losses = self._latents(history), []
        for _ in range(self._learning_steps):
            chosen = int(torch.randint(len(latents), (), generator=stream))
            table.requires_grad_(True)
            loss = self._loss(latents[chosen : chosen + 1], stream)
            (gradient,) = torch.autograd.grad(loss, table)
            table.requires_grad_(False)
            # Every other word stays as it is: only this row's gradient is used.
            vector.grad = gradient[self._place]
            optimizer.step()
            with torch.no_grad():
                table[self._place] = vector
            losses.append(float(loss.detach()))
        return losses

    def _loss(self, latents: Tensor, stream: torch.Generator) -> Tensor:
        """The diffusion loss of one latent [1, c, h, w] at a random time under the prompt."""
        pipeline, scheduler = self._pipeline, self._noise
        noise = torch.randn(latents.shape, generator=stream).to(latents)
        time = torch.randint(scheduler.config.num_train_timesteps, (1,), generator=stream).to(latents.device)
        tokens = pipeline.tokenizer(
            PROMPT, padding="max_length", max_length=pipeline.tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        words = pipeline.text_encoder(tokens.input_ids.to(latents.device))[0]
        found = pipeline.unet(scheduler.add_noise(latents, noise, time), time, words).sample
        wanted = noise
        if scheduler.config.prediction_type == "v_prediction":
            wanted = scheduler.get_velocity(latents, noise, time)
        return functional.mse_loss(found, wanted)

    @torch.no_grad()
    def _latents(self, history: tuple[Image.Image, ...]) -> Tensor:
        """Means of the history's latents [N, c, h, w]."""
        pipeline = self._pipeline
        side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        arrays = [np.array(image.resize((side, side), Image.Resampling.BICUBIC)) for image in history]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
        encoded = pipeline.vae.encode(pixels.to(pipeline.vae.device)).latent_dist.mean
        latents: Tensor = encoded * pipeline.vae.config.scaling_factor
        return latents


def load(given: argparse.Namespace, device: torch.device) -> TextualInversion:
    """The rival of ``--model``; raises :class:`WeightsError`."""
    return TextualInversion(load_pipeline(given.model, device), given.steps, given.learning_steps)


def _options(parser: argparse.ArgumentParser) -> None:
    add_steps(parser)
    parser.add_argument("--learning-steps", type=int, default=LEARNING_STEPS, help=f"per history, {LEARNING_STEPS}")


MAKER = RowMaker(
    "pigeon_cli.evaluation.baselines.textual_inversion",
    "Textual inversion, one word per history",
    load,
    _options,
    status=STATUS,
    hashes=folder_hashes,
)

if __name__ == "__main__":
    sys.exit(main(MAKER))
