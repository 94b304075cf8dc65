"""IP-Adapter (Ye et al. 2023): the liked images, averaged, as image prompt; the request's words as text prompt.

Not run with real weights: tested on tiny random ones. ``--model`` is a Stable Diffusion folder of diffusers' layout
with ``ip_adapter/ip-adapter.safetensors`` and ``ip_adapter/image_encoder/`` in it, as published for SD 1.5 (h94). It
reads no reference image: what is asked for comes from words alone, and without words from nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pigeon_cli.evaluation.baselines import STATUS
from pigeon_cli.evaluation.baselines.stable_diffusion import (
    GUIDANCE,
    Pipeline,
    add_steps,
    folder_hashes,
    load_pipeline,
    unusable,
)
from pigeon_cli.evaluation.drawing import RowMaker, main
from pigeon_cli.evaluation.pictures import Shown

FOLDER, WEIGHTS = "ip_adapter", "ip-adapter.safetensors"


class IpAdapter:
    """A pipeline with its adapter."""

    def __init__(self, pipeline: Pipeline, steps: int) -> None:
        self._pipeline, self._steps = pipeline, steps

    @torch.inference_mode()
    def draw(self, shown: Shown, stream: torch.Generator) -> Image.Image | None:
        """``None`` without a history."""
        if not shown.history:
            return None
        drawn: Image.Image = self._pipeline(
            prompt=shown.words,
            ip_adapter_image_embeds=[self.taste(shown.history)],
            guidance_scale=GUIDANCE,
            num_inference_steps=self._steps,
            generator=stream,
        ).images[0]
        return drawn

    def taste(self, history: tuple[Image.Image, ...]) -> Tensor:
        """Zeros for the unconditional branch, then the mean embedding of ``history``: [2, 1, D]."""
        pipeline = self._pipeline
        embedded = pipeline.encode_image(list(history), pipeline.device, 1)[0]
        mean = embedded.mean(0, keepdim=True)[None]
        return torch.cat([torch.zeros_like(mean), mean])


def load(given: argparse.Namespace, device: torch.device) -> IpAdapter:
    """The rival of ``--model``; raises :class:`WeightsError`."""
    pipeline = load_pipeline(given.model, device)
    try:
        pipeline.load_ip_adapter(given.model, subfolder=FOLDER, weight_name=WEIGHTS, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise unusable(Path(given.model, FOLDER), error) from error
    return IpAdapter(pipeline, given.steps)


MAKER = RowMaker(
    "pigeon_cli.evaluation.baselines.ip_adapter",
    "IP-Adapter with the history averaged",
    load,
    add_steps,
    status=STATUS,
    hashes=folder_hashes,
)

if __name__ == "__main__":
    sys.exit(main(MAKER))
