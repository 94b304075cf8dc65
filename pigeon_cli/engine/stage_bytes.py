"""What each stage of a request holds in memory beside its parts: keys and values exactly, activations by estimate.

Source: issue 4 section 4, DESIGN.md "The shape of a fast run". An estimate counts the largest tensors that are there at
once. It is what the pipeline may hold: the keys and values of the prompt once, and those of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pigeon_cli.core.configs import LanguageConfig, ModelSpec, SamplingConfig
from pigeon_cli.engine.part_bytes import part_size
from pigeon_cli.engine.plan import Precision
from pigeon_cli.engine.schedule import Stage, Workload
from pigeon_cli.weights.store import ModelFolder

if TYPE_CHECKING:
    from pigeon_cli.weights.official import OfficialFolder

_LOGIT_BYTES: Final = 32
"""Per id and sequence: the logit and its log-softmax in float32, sorted probabilities and their places in 8 bytes."""
_UNET_MAPS: Final = 16
"""In maps of the first width: 5 wait for the way up, 11 are the inputs and results of the widest block."""
_VAE_MAPS: Final = 8
"""In maps of the first width: the last block's input, twice as wide, also normed and activated, shortcut and result."""


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
    """Candidates that become pixels."""
    sampling: SamplingConfig
    reference: bool = True
    """False where the base model imagines the reference."""
    aligned: bool = True


def workload(folder: ModelFolder | OfficialFolder, demand: Demand, precision: Precision) -> Workload:
    """A request in the stages of :meth:`pigeon_cli.pipeline.session.Session.personalize`.

    Raises :class:`pigeon_cli.core.errors.WeightsError` for a file that cannot be read.
    """
    stages = tuple(stages_of(folder.spec, demand, precision))
    names = dict.fromkeys(name for stage in stages for name in stage.parts)
    return Workload(tuple(part_size(folder, name, precision) for name in names), stages)


def stages_of(spec: ModelSpec, demand: Demand, precision: Precision) -> Iterator[Stage]:
    """The stages, the bytes that each holds and why; a model without scorer neither compares nor ranks."""
    wide, candidates, drawn = precision.width, demand.candidates, demand.drawn
    seen, decoded = _encoder_numbers(spec) * wide, _decoder_numbers(spec) * wide
    model, adapter = ("aligned language", "adapter") if demand.aligned else ("language", "base_adapter")
    yield Stage("read the images", ("tokenizer",), demand.images * seen, reason="an encoder block for every image")
    if not demand.reference:
        yield _drawing("imagine a reference", ("language", "tokenizer"), 1, spec, demand, wide)
    masked = _mask_numbers(spec, demand.tokens) * wide
    yield Stage("mask", ("mask_generator", "embedding"), masked, reason="a block over the tokens of all images")
    why = "a decoder block for every image or candidate"
    yield Stage("slots", ("quantizer", "decoder", adapter), candidates * decoded, reason=why)
    yield _drawing("imagine", (model,), candidates, spec, demand, wide)
    if spec.scorer is not None:
        compared = (candidates + demand.images) * decoded
        yield Stage("prescore", ("quantizer", "decoder", "scorer"), compared, reason=why)
    parts, pixels = ("quantizer", "decoder", "unet", "vae"), _pixel_numbers(spec) * wide
    painted = "a decoder block for every image; a row: one image in the widest block of UNet or VAE"
    yield Stage("draw", parts, drawn * decoded, drawn, pixels, painted)
    if spec.scorer is not None:
        again = drawn * (seen + decoded)
        yield Stage("score", ("tokenizer", "decoder", "scorer"), again, reason="a block of both for every image")


def key_value_bytes(config: LanguageConfig, rows: int, tokens: int, number_bytes: int) -> int:
    """Bytes of the keys and values of ``rows`` sequences of ``tokens``: two vectors per layer and token."""
    return rows * tokens * config.layers * 2 * config.hidden_size * number_bytes


def _drawing(name: str, parts: tuple[str, ...], rows: int, spec: ModelSpec, demand: Demand, wide: int) -> Stage:
    """A stage in which the language model draws; one of its rows is all the sequences of one candidate."""
    config, sampling = spec.language, demand.sampling
    ratio = config.intermediate_size / config.hidden_size
    block = _block_numbers(demand.tokens, config.hidden_size, ratio, config.heads) * wide
    sequences = sampling.beams * (1 if sampling.guidance == 1.0 else 2)
    logits = sequences * spec.vocabulary.size * _LOGIT_BYTES
    return Stage(
        name,
        parts,
        reserve=block + key_value_bytes(config, 1, demand.tokens, wide),
        rows=rows,
        row_bytes=key_value_bytes(config, sequences, demand.tokens, wide) + logits,
        reason="a block over the prompt, its keys and values; a row: keys, values and logits of its beams",
    )


def _block_numbers(tokens: int, width: int, mlp_ratio: float, heads: int) -> int:
    """Of a transformer block at work: input, normed, queries, keys, values, result, the hidden layer before and after
    its activation, and the attention weights, should they be written out."""
    return int(tokens * width * (6 + 2 * mlp_ratio)) + heads * tokens**2


def _encoder_numbers(spec: ModelSpec) -> int:
    config = spec.tokenizer
    return _block_numbers(config.patches + 1, config.width, config.mlp_ratio, config.encoder_heads)


def _decoder_numbers(spec: ModelSpec) -> int:
    config = spec.decoder
    return _block_numbers(config.queries + spec.tokenizer.patches, config.width, config.mlp_ratio, config.heads)


def _mask_numbers(spec: ModelSpec, tokens: int) -> int:
    config = spec.mask_generator
    return _block_numbers(tokens, config.width, config.feed_forward / config.width, config.heads)


def _pixel_numbers(spec: ModelSpec) -> int:
    """For one image: the UNet with and without condition, and then the VAE."""
    unet, vae = spec.diffusion.unet, spec.diffusion.vae
    latents = 2 * _UNET_MAPS * int(unet["block_out_channels"][0]) * int(unet["sample_size"]) ** 2
    return max(latents, _VAE_MAPS * int(vae["block_out_channels"][0]) * spec.diffusion.image_size**2)
