"""What each stage of a request holds in memory beside its parts: keys and values exactly, activations by estimate.

Source: issue 4 section 4, DESIGN.md "The shape of a fast run". An estimate counts the largest tensors that are there at
once. It is what the pipeline may hold: the keys and values of the prompt once, and those of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from pigeon_cli.core.configs import LanguageConfig, MemoryConfig, ModelSpec, SamplingConfig
from pigeon_cli.engine.part_bytes import part_size
from pigeon_cli.engine.plan import Precision
from pigeon_cli.engine.schedule import Stage, Workload
from pigeon_cli.weights.stored_model import StoredModel

LANGUAGE_ROWS: Final = 32
"""Sequences of one forward pass at most, unconditional ones included."""
IMAGES_AT_ONCE: Final = 16
"""Images of one batch at most."""

_LOGIT_BYTES: Final = 32
"""Per id and sequence: the logit and its log-softmax in float32, sorted probabilities and their places in 8 bytes."""
_TAIL: Final = 16
"""Words of a prompt that follow the reference, about; dial positions do not share them."""
_UNET_MAPS: Final = 16
"""In maps of the first width: 5 wait for the way up, 11 are the inputs and results of the widest block."""
_VAE_MAPS: Final = 12
"""In maps of the first width: the last block's input, twice as wide, also normed and activated, shortcut, result, and
what convolutions lay out anew; measured."""
_CLIP_IMAGE_BYTES: Final = 2**25
"""A block of ViT-H/14 over the 257 tokens of one image, with the image itself."""


@dataclass(frozen=True)
class Demand:
    """What decides the memory of a request."""

    images: int
    """History, and the reference where one is given."""
    tokens: int
    """The longest sequence of the language model, drawn tokens included."""
    candidates: int
    """Dial positions times samples."""
    drawn: int
    """Candidates that become pixels; 0 where only masks are asked for."""
    sampling: SamplingConfig
    reference_tokens: int = 0
    """The longest sequence of the base model that imagines the reference; 0 where an image is given."""
    aligned: bool = True
    learned_mask: bool = False
    size: tuple[int, int] | None = None
    """Height and width in pixels; ``None``: the model's own."""


def workload(model: StoredModel, demand: Demand, precision: Precision) -> Workload:
    """A request in the stages of :meth:`pigeon_cli.pipeline.session.Session.personalize`.

    Raises :class:`pigeon_cli.core.errors.WeightsError` for a file that cannot be read.
    """
    stages = tuple(stages_of(model, demand, precision))
    names = dict.fromkeys(name for stage in stages for name in stage.parts)
    return Workload(tuple(part_size(model, name, precision) for name in names), stages)


def stages_of(model: StoredModel, demand: Demand, precision: Precision) -> Iterator[Stage]:
    """The stages, the bytes that each holds and why."""
    spec, wide = model.spec, precision.width
    seen, decoded = _encoder_numbers(spec) * wide, _decoder_numbers(spec) * wide
    pixels = _pixel_numbers(spec, demand.size) * wide
    painted = "a decoder block for every image; a row: one image in the widest block of UNet or VAE"
    taste = () if spec.taste is None else ("taste",)
    if spec.memory is not None:
        yield _recall(spec, spec.memory, demand.images * seen, wide)
    yield Stage(
        "read the images", ("tokenizer", *taste), demand.images * seen, reason="an encoder block for every image"
    )
    if demand.reference_tokens:
        imagined = replace(demand, tokens=demand.reference_tokens, sampling=reference_sampling(spec, demand.sampling))
        yield _drawing("imagine a reference", ("language", "quantizer"), 1, spec, imagined, precision)
    masked = _mask_numbers(spec, demand.tokens) * wide
    scoring = ("mask_generator", "embedding") if demand.learned_mask else ()
    yield Stage("mask", scoring, masked, reason="a block over the tokens of all images")
    if not demand.drawn:
        return
    adapter = "adapter" if demand.aligned else "base_adapter"
    why = "a decoder block for every image or candidate"
    translator = () if spec.translator is None else ("translator",)
    yield Stage("slots", ("quantizer", "decoder", *translator, adapter), demand.candidates * decoded, reason=why)
    yield _drawing("imagine", _language(model, demand), demand.candidates, spec, demand, precision)
    scorer = () if spec.scorer is None else ("scorer",)
    compared = (demand.candidates + demand.images) * decoded
    yield Stage("prescore", ("quantizer", "decoder", *scorer), compared, reason=why)
    rows = min(demand.drawn, IMAGES_AT_ONCE)
    yield Stage("draw", ("quantizer", "decoder", "unet", "vae"), demand.drawn * decoded, rows, pixels, painted)
    if scorer:
        again = demand.drawn * (seen + decoded)
        parts = ("tokenizer", "quantizer", "decoder", *scorer)
        yield Stage("score", parts, again, reason="a block of both for every image")
    elif model.clip is not None:
        viewed = (demand.drawn + demand.images) * _CLIP_IMAGE_BYTES
        yield Stage("score", ("clip",), viewed, reason="a block of CLIP for every image")


def reference_sampling(spec: ModelSpec, sampling: SamplingConfig) -> SamplingConfig:
    """How a reference is drawn from words alone: no more codes than an image has tokens."""
    limit = min(sampling.maximum_tokens, spec.tokenizer.tokens)
    guidance = sampling.guidance if sampling.reference_guidance is None else sampling.reference_guidance
    return replace(
        sampling,
        maximum_tokens=limit,
        minimum_tokens=min(sampling.minimum_tokens, limit),
        guidance=guidance,
    )


def key_value_bytes(config: LanguageConfig, rows: int, tokens: int, number_bytes: int) -> int:
    """Bytes of the keys and values of ``rows`` sequences of ``tokens``: two vectors per layer and token."""
    return rows * tokens * config.layers * 2 * config.hidden_size * number_bytes


def _recall(spec: ModelSpec, memory: MemoryConfig, seen: int, wide: int) -> Stage:
    """A remembered drawing is decoded at the model's own size; ``seen`` are bytes of the history's encoder blocks."""
    reading = () if spec.taste is None else ("tokenizer", "taste")
    # The stream brings a patch's indices to a power of two.
    indices = memory.drawings * memory.patches * 2 * memory.levels
    pixels = _vae_numbers(spec, spec.diffusion.image_size, spec.diffusion.image_size) * wide
    why = "an encoder block for every image, or the indices of all drawings; a row: one image in the VAE's widest block"
    return Stage("recall", ("memory", *reading, "vae"), max(seen, indices), 1, pixels, why)


def _language(model: StoredModel, demand: Demand) -> tuple[str, ...]:
    if not demand.aligned:
        return ("language",)
    return ("language", "lora") if model.mapped else ("aligned language",)


def _drawing(
    name: str, parts: tuple[str, ...], rows: int, spec: ModelSpec, demand: Demand, precision: Precision
) -> Stage:
    """A stage in which the language model draws; one of its rows is all the sequences of one candidate."""
    config, sampling, wide = spec.language, demand.sampling, precision.width
    ratio = config.intermediate_size / config.hidden_size
    block = _block_numbers(demand.tokens, config.hidden_size, ratio, config.heads) * wide
    if precision is Precision.INT8:
        # A layer's weights are made whole for the many rows of a prompt.
        block += config.hidden_size * config.intermediate_size * wide
    guided = sampling.guidance != 1.0
    sequences = sampling.beams * (2 if guided else 1)
    own = demand.tokens if guided else min(demand.tokens, sampling.maximum_tokens + spec.reference_slots + _TAIL)
    one_layer = sequences * demand.tokens * 2 * config.hidden_size * wide
    logits = sequences * spec.vocabulary.size * _LOGIT_BYTES
    return Stage(
        name,
        parts,
        reserve=block + key_value_bytes(config, 1, demand.tokens, wide),
        rows=min(rows, max(1, LANGUAGE_ROWS // sequences)),
        row_bytes=key_value_bytes(config, sequences, own, wide) + one_layer + logits,
        reason="a block over the prompt, its keys and values; a row: keys and values that its beams have alone, those "
        "of one layer made whole, and logits",
    )


def _block_numbers(tokens: int, width: int, mlp_ratio: float, heads: int) -> int:
    """Of a transformer block at work: input, normed, queries, keys, values, result, the hidden layer before and after
    its activation, and the attention weights, should they be written out."""
    return int(tokens * width * (6 + 2 * mlp_ratio)) + heads * tokens**2


def _encoder_numbers(spec: ModelSpec) -> int:
    config = spec.tokenizer
    return _block_numbers(config.tokens + 1, config.width, config.mlp_ratio, config.encoder_heads)


def _decoder_numbers(spec: ModelSpec) -> int:
    config = spec.decoder
    return _block_numbers(config.queries + spec.tokenizer.patches, config.width, config.mlp_ratio, config.heads)


def _mask_numbers(spec: ModelSpec, tokens: int) -> int:
    config = spec.mask_generator
    return _block_numbers(tokens, config.width, config.feed_forward / config.width, config.heads)


def _pixel_numbers(spec: ModelSpec, size: tuple[int, int] | None) -> int:
    """For one image: the UNet with and without condition, and without taste where that is guided; then the VAE."""
    unet, vae = spec.diffusion.unet, spec.diffusion.vae
    height, width = size or (spec.diffusion.image_size, spec.diffusion.image_size)
    latents = height * width // 4 ** (len(vae["block_out_channels"]) - 1)
    parts = 2 if spec.diffusion.taste_guidance == 1.0 else 3
    painted = parts * _UNET_MAPS * int(unet["block_out_channels"][0]) * latents
    return max(painted, _vae_numbers(spec, height, width))


def _vae_numbers(spec: ModelSpec, height: int, width: int) -> int:
    return _VAE_MAPS * int(spec.diffusion.vae["block_out_channels"][0]) * height * width
