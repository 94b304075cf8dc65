"""The Stable Diffusion pipeline that two of the baselines draw with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from diffusers import StableDiffusionPipeline

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.checkpoint import sha256_of

Pipeline: TypeAlias = Any
"""A ``StableDiffusionPipeline``; diffusers declares neither its parts nor its call."""
DRAW_STEPS: Final = 30
GUIDANCE: Final = 7.5


def add_steps(parser: argparse.ArgumentParser) -> None:
    """``--steps`` of the drawing."""
    parser.add_argument("--steps", type=int, default=DRAW_STEPS, help=f"diffusion steps, {DRAW_STEPS}")


def load_pipeline(folder: str | Path, device: torch.device) -> Pipeline:
    """A frozen float32 pipeline of a local folder in diffusers' layout, safetensors only, without safety checker.

    Raises :class:`WeightsError` for any other folder.
    """
    try:
        pipeline: Pipeline = StableDiffusionPipeline.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, safety_checker=None, requires_safety_checker=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise unusable(folder, error) from error
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False).eval()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    return pipeline


def folder_hashes(folder: str) -> dict[str, str]:
    """The safetensors files of a folder by their path in it with their SHA-256."""
    root = Path(folder)
    return {path.relative_to(root).as_posix(): sha256_of(path) for path in sorted(root.rglob("*.safetensors"))}


def unusable(folder: str | Path, error: Exception) -> WeightsError:
    """What is wrong with a folder, in one line."""
    reason = str(error).strip().partition("\n")[0]
    return WeightsError(f"cannot read a model from {folder}: {reason}", "name a folder in the layout of diffusers")
