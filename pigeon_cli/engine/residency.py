"""Which parts of a model are in memory: loaded when first used, kept or let go afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import LlamaForCausalLM

from pigeon_cli.core.configs import LanguageConfig, ModelSpec
from pigeon_cli.core.errors import WeightsError
from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.models.adapter import Adapter
from pigeon_cli.models.diffusion import UNet, build_unet, build_vae
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.language import build_language_model
from pigeon_cli.models.mask_generator import MaskGenerator
from pigeon_cli.models.scorer import Scorer
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.weights.checkpoint import load_part, read_part
from pigeon_cli.weights.store import ModelFolder
from pigeon_cli.weights.tied import load_language

M = TypeVar("M")
"""A module; not bound to ``nn.Module``, since a type checker cannot see what diffusers' classes descend from."""


@dataclass(frozen=True)
class Part(Generic[M]):
    """A named module of a model folder and how to make it."""

    name: str
    load: Callable[[ModelFolder], M]


def _plain(name: str, build: Callable[[ModelSpec], M]) -> Part[M]:
    def load(folder: ModelFolder) -> M:
        module = build(folder.spec)
        load_part(cast(nn.Module, module), folder.part(name))
        return module

    return Part(name, load)


def _scorer(spec: ModelSpec) -> Scorer:
    if spec.scorer is None:
        raise WeightsError(f"the model {spec.name} has no scorer", "use a model whose config.json describes one")
    return Scorer(spec.scorer)


def _base(folder: ModelFolder) -> LlamaForCausalLM:
    model = build_language_model(folder.spec.language, folder.spec.vocabulary)
    load_language(model, folder.part("language"))
    return model


def _aligned(folder: ModelFolder) -> LlamaForCausalLM:
    model = _base(folder)
    merge_lora_file(model, folder, folder.spec.language)
    return model


TOKENIZER = _plain("tokenizer", lambda spec: VisualTokenizer(spec.tokenizer))
DECODER = _plain("decoder", lambda spec: EmbeddingDecoder(spec.decoder))
MASK_GENERATOR = _plain("mask_generator", lambda spec: MaskGenerator(spec.mask_generator))
ADAPTER = _plain("adapter", lambda spec: Adapter(spec.adapter))
BASE_ADAPTER = _plain("base_adapter", lambda spec: Adapter(spec.adapter))
"""The adapter that the base model was trained with."""
SCORER = _plain("scorer", _scorer)
UNET: Part[UNet] = _plain("unet", lambda spec: build_unet(spec.diffusion, spec.decoder.context_width))
VAE: Part[AutoencoderKL] = _plain("vae", lambda spec: build_vae(spec.diffusion))
BASE = Part("language", _base)
"""The language model without its alignment."""
ALIGNED = Part("aligned language", _aligned)
"""The language model with its LoRA folded in."""


class Parts:
    """The parts of one model on one device, in float32; a part is loaded when it is first used.

    ``keep`` false lets every part go as soon as it has worked, for models that do not fit as a whole.
    ``seconds`` is the time spent on loading so far.
    """

    def __init__(self, folder: ModelFolder, device: DeviceChoice, keep: bool = True) -> None:
        self.folder, self.device, self.keep = folder, device, keep
        self.seconds = 0.0
        self._resident: dict[str, object] = {}

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of the parts in memory."""
        return tuple(self._resident)

    @contextmanager
    def use(self, part: Part[M]) -> Iterator[M]:
        """The module of ``part``, in evaluation mode and without gradients; raises :class:`WeightsError`."""
        if part.name in self._resident:
            yield cast(M, self._resident[part.name])
            return
        started = time.perf_counter()
        # Tensors born in inference mode could not be used outside it later.
        with torch.inference_mode(False):
            module = part.load(self.folder)
            cast(nn.Module, module).to(self.device.device).eval().requires_grad_(False)
        self.seconds += time.perf_counter() - started
        self._resident[part.name] = module
        try:
            yield module
        finally:
            if not self.keep:
                del self._resident[part.name]


def merge_lora_file(model: LlamaForCausalLM, folder: ModelFolder, config: LanguageConfig) -> None:
    """Fold the adapter of ``folder`` into ``model``: W + alpha / rank * B A for every pair in the file.

    Each target must have exactly its two matrices of the right shapes, or :class:`WeightsError` names the first that
    has not.
    """
    path = folder.part("lora")
    found = read_part(path)
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in config.lora_targets
    }
    wanted: dict[str, tuple[int, int]] = {}
    for name, module in linears.items():
        wanted[_lora_key(name, "A")] = (config.lora_rank, module.in_features)
        wanted[_lora_key(name, "B")] = (module.out_features, config.lora_rank)
    shapes: dict[str, Any] = {key: tuple(tensor.shape) for key, tensor in found.items()}
    if wrong := sorted(key for key in wanted.keys() | shapes.keys() if wanted.get(key) != shapes.get(key)):
        raise WeightsError(
            f"the adapter {path} does not fit the language model: {len(wrong)} tensors differ, first {wrong[0]}",
            "use the adapter that was trained for this model",
        )
    with torch.no_grad():
        for name, module in linears.items():
            first, second = found[_lora_key(name, "A")].float(), found[_lora_key(name, "B")].float()
            module.weight += (config.lora_alpha / config.lora_rank * (second @ first)).to(module.weight)


def _lora_key(name: str, side: str) -> str:
    return f"base_model.model.{name}.lora_{side}.weight"
