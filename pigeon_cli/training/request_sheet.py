"""Sheets of fixed valid requests: history, reference, what the model draws, and the right answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.engine.residency import DECODER, TOKENIZER, UNET, VAE, Parts
from pigeon_cli.pipeline.decode import condition, draw_latents, to_images
from pigeon_cli.pipeline.imagine import nothing_asked
from pigeon_cli.pipeline.positions import position_step, token_positions
from pigeon_cli.pipeline.reference import EmbeddedPrompts
from pigeon_cli.pipeline.sampling import Model, allowed_ids, prefill, sample_codes
from pigeon_cli.report.sheet import make_sheet
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.looks import PLAIN, Look, apply_look
from pigeon_cli.training.data.requests import TrainingRequest
from pigeon_cli.training.figures import to_images as tensor_to_images
from pigeon_cli.training.sequences import CodedRequest
from pigeon_cli.weights.store import ModelFolder

REQUESTS = 12
HEADERS = ("history", "", "", "", "", "reference", "drawn", "right answer")


class CodedSheet(Protocol):
    """A sheet of fixed requests that waits for its drawn column."""

    coded: list[CodedRequest]

    def save(self, path: Path, codes: Sequence[Sequence[int]]) -> bool:
        """Write it with ``codes`` as what is drawn; false where the image generator is not trained yet."""


@dataclass
class RequestSheet:
    """Pictures and codes of the first ``REQUESTS`` of some evaluation requests."""

    folder: ModelFolder
    batches: IconBatches
    device: DeviceChoice
    requests: Sequence[TrainingRequest]
    coded: list[CodedRequest]

    def __post_init__(self) -> None:
        self.requests, self.coded = self.requests[:REQUESTS], self.coded[:REQUESTS]

    def picture(self, number: int, look: Look) -> Image.Image:
        """An image of the dataset under a look."""
        return tensor_to_images(apply_look(look, self.batches.rgba([self.batches.dataset.records[number]])))[0]

    def save(self, path: Path, codes: Sequence[Sequence[int]]) -> bool:
        """Write the sheet with ``codes`` as the drawn column; false where the image generator is not trained yet."""
        if not (self.folder.part("unet").is_file() and self.folder.part("vae").is_file()):
            return False
        rows = []
        for request, drawn in zip(self.requests, draw_codes(self.folder, self.device, codes), strict=True):
            liked = [self.picture(*pair) for pair in zip(request.history, request.history_looks(), strict=True)]
            answer = self.picture(request.target, request.look)
            rows.append([*liked, self.picture(request.reference, PLAIN), drawn, answer])
        make_sheet(rows, headers=HEADERS, captions=[request.words for request in self.requests]).save(path)
        return True


def draw_codes(folder: ModelFolder, device: DeviceChoice, codes: Sequence[Sequence[int]]) -> list[Image.Image]:
    """Pictures of ``codes`` by the model's image generator, one stream a row."""
    parts, config = Parts(folder, device, keep=False), folder.spec.diffusion
    streams = [torch.Generator().manual_seed(stream_seed(0, "sheet", row)) for row in range(len(codes))]
    with parts.use(TOKENIZER) as tokenizer, parts.use(DECODER) as decoder:
        wanted = condition(decoder, tokenizer.quantizer, codes)
    with parts.use(UNET) as unet:
        latents = draw_latents(unet, config, wanted, streams, steps=config.steps, guidance=config.guidance)
    with parts.use(VAE) as vae:
        return to_images(vae, latents)


def imagine_codes(
    model: Model, folder: ModelFolder, read: EmbeddedPrompts, ids: Tensor, attention: Tensor, guidance: float = 1.0
) -> list[tuple[int, ...]]:
    """Codes that ``model`` draws after left-padded prompts ``ids`` [B, L], one stream a row.

    By default without guidance; its unconditional context is the image start alone, as in generation.
    """
    spec = folder.spec
    places, step = token_positions(ids, attention, spec), position_step(spec)
    drawn = sample_codes(
        model,
        prefill(model, read.embedded, attention, positions=places, step=step, coming=read.coming),
        range(len(ids)),
        replace(spec.sampling, guidance=guidance, beams=1),
        allowed=allowed_ids(spec.vocabulary),
        image_end=spec.vocabulary.image_end,
        generators=[torch.Generator().manual_seed(stream_seed(0, "codes", row)) for row in range(len(ids))],
        unconditional=nothing_asked(model, spec, ids) if guidance != 1.0 else None,
    )
    return [tuple(spec.vocabulary.to_code(token) for token in each.token_ids) for each in drawn]
