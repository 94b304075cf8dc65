"""What every part of a model does in a run, on weights made on the spot: shapes of a real request, values of none.

Importable without diffusers: only the two parts that need it import it, when they are built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.models.adapter import Adapter
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.language import build_language_model
from pigeon_cli.models.mask_generator import HISTORY, REFERENCE, MaskGenerator
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.pipeline.sampling import Prefix, allowed_ids, prefill, sample_codes
from tests.full_size.stream import DEVIATION, settled_values


@dataclass(frozen=True)
class Load:
    """How much there is to do; the defaults are a request of six images with the published settings."""

    images: int = 6
    tokens: int = 90
    """Codes of an image."""
    prompt: int = 900
    rows: int = 4
    """Candidates, each with the beams of the specification."""
    drawn: int = 32
    steps: int = 25


Work = Callable[[Any, ModelSpec, Load], Tensor]
"""Runs a built module; what it returns is finite when the weights are sane."""


def _unet(spec: ModelSpec) -> Any:
    from pigeon_cli.models.diffusion import build_unet

    return build_unet(spec.diffusion, spec.decoder.context_width)


def _vae(spec: ModelSpec) -> Any:
    from pigeon_cli.models.diffusion import build_vae

    return build_vae(spec.diffusion)


BUILDERS: dict[str, Callable[[ModelSpec], Any]] = {
    "tokenizer": lambda spec: VisualTokenizer(spec.tokenizer),
    "mask_generator": lambda spec: MaskGenerator(spec.mask_generator),
    "decoder": lambda spec: EmbeddingDecoder(spec.decoder),
    "adapter": lambda spec: Adapter(spec.adapter),
    "language": lambda spec: build_language_model(spec.language, spec.vocabulary),
    "unet": _unet,
    "vae": _vae,
}


def build(part: str, spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Any:
    """The module of ``part`` in evaluation mode, built without weights and given random ones on ``device``."""
    with init_empty_weights(include_buffers=False):
        module = BUILDERS[part](spec)
    generator = torch.Generator(device).manual_seed(0)
    tensors = {}
    for key, tensor in module.state_dict().items():
        settled = settled_values(key, tuple(tensor.shape))
        if settled is None:
            settled = torch.empty(tensor.shape, dtype=dtype, device=device)
            settled.normal_(0, DEVIATION, generator=generator)
        tensors[key] = settled.to(device, dtype)
    module.load_state_dict(tensors, strict=True, assign=True)
    # Buffers that no file holds are left, in the type that they are computed in.
    return module.to(device).eval().requires_grad_(False)


def tokenize(module: VisualTokenizer, spec: ModelSpec, load: Load) -> Tensor:
    """All images of a request at once."""
    side = spec.tokenizer.image_size
    found = module.encode(_normal(module, load.images, 3, side, side))
    codes = found.codes[found.keep]
    assert len(codes) >= load.images and int(codes.min()) >= 0 and int(codes.max()) < spec.tokenizer.code_count
    return found.vectors


def mask(module: MaskGenerator, spec: ModelSpec, load: Load) -> Tensor:
    """Scores of the tokens of all images, the last of which is the reference."""
    width, count = spec.mask_generator.width, load.images * load.tokens
    embeddings = _normal(module, 1, count, width)
    places = torch.arange(count, device=embeddings.device).unsqueeze(0)
    types = torch.where(places < count - load.tokens, HISTORY, REFERENCE)
    scores = module(embeddings, places % load.tokens + 1, types)
    assert float(scores.abs().max()) <= 1.01
    return scores


def decode(module: EmbeddingDecoder, spec: ModelSpec, load: Load) -> Tensor:
    """The conditions of all candidates."""
    vectors = _normal(module, load.rows, load.tokens, spec.decoder.code_width)
    condition = module(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device))
    assert condition.pooled.shape == (load.rows, spec.decoder.pooled_width)
    return condition.context


def adapt(module: Adapter, spec: ModelSpec, load: Load) -> Tensor:
    """The reference vectors of all candidates."""
    return module(_normal(module, load.rows, 1, spec.adapter.input_width))


def read(module: Any, spec: ModelSpec, load: Load) -> Tensor:
    """Logits after one prompt."""
    return _read(module, spec, load).logits


def draw(module: Any, spec: ModelSpec, load: Load) -> Tensor:
    """Log-probabilities of all candidates, drawn from one prompt that is read anew."""
    limits = replace(spec.sampling, minimum_tokens=min(load.drawn, 20), maximum_tokens=load.drawn)
    drawn = sample_codes(
        module,
        _read(module, spec, load),
        [0] * load.rows,
        limits,
        allowed=allowed_ids(spec.vocabulary),
        image_end=spec.vocabulary.image_end,
        generators=[torch.Generator().manual_seed(row) for row in range(load.rows)],
    )
    assert all(spec.vocabulary.is_code(token) for row in drawn for token in row.token_ids)
    assert all(limits.minimum_tokens <= len(row.token_ids) <= load.drawn for row in drawn)
    return torch.tensor([row.log_probability for row in drawn])


def denoise(module: Any, spec: ModelSpec, load: Load) -> Tensor:
    """Latents of one image, guided."""
    from pigeon_cli.models import diffusion

    config, side = spec.diffusion, int(spec.diffusion.unet["sample_size"])
    size = (config.image_size, config.image_size)
    context = _normal(module, 1, spec.decoder.queries, spec.decoder.context_width)
    pooled, noise = _normal(module, 1, spec.decoder.pooled_width), _normal(module, 1, 4, side, side).float()
    scheduler = diffusion.build_scheduler(config)
    return diffusion.denoise(
        module, scheduler, context, pooled, noise, steps=load.steps, guidance=config.guidance, size=size
    )


def show(module: Any, spec: ModelSpec, load: Load) -> Tensor:
    """Pixels of one image."""
    from pigeon_cli.models import diffusion

    side = int(spec.diffusion.unet["sample_size"])
    pixels = diffusion.decode_latents(module, _normal(module, 1, 4, side, side))
    assert pixels.dtype == torch.uint8 and pixels.shape[0] == 1 and pixels.shape[3] == 3
    assert int(pixels.max()) > int(pixels.min()), "one colour only"
    return pixels


WORKS: dict[str, dict[str, Work]] = {
    "tokenizer": {"tokenize": tokenize},
    "mask_generator": {"mask": mask},
    "decoder": {"decode": decode},
    "adapter": {"adapt": adapt},
    "language": {"read the prompt": read, "read and draw": draw},
    "unet": {"denoise": denoise},
    "vae": {"show": show},
}
"""What each part does, by the names under which it is measured."""


def run(work: Work, module: Any, spec: ModelSpec, load: Load) -> None:
    """One piece of work without gradients; fails unless what comes out is finite."""
    with torch.inference_mode():
        found = work(module, spec, load)
    assert bool(found.float().isfinite().all())


def _read(module: Any, spec: ModelSpec, load: Load) -> Prefix:
    embeddings = _normal(module, 1, load.prompt, spec.language.hidden_size)
    return prefill(module, embeddings, torch.ones(1, load.prompt, dtype=torch.int64, device=embeddings.device))


def _normal(module: nn.Module, *shape: int) -> Tensor:
    """Standard normal numbers where ``module`` is and in its type."""
    like = next(module.parameters())
    return torch.randn(shape, dtype=like.dtype, device=like.device)
