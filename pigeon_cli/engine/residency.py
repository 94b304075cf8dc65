"""Which parts of a model are in memory: what a plan says, or else whatever has been used."""

from __future__ import annotations

import gc
import json
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
from pigeon_cli.engine.conversion import convert, trim
from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.engine.part_bytes import MADE_OF, QUANTIZED
from pigeon_cli.engine.plan import Plan, Precision
from pigeon_cli.engine.schedule import Step
from pigeon_cli.models.adapter import Adapter
from pigeon_cli.models.diffusion import UNet, build_unet, build_vae
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.language import build_language_model
from pigeon_cli.models.low_rank import LowRank
from pigeon_cli.models.mask_generator import MaskGenerator
from pigeon_cli.models.memory import Memory
from pigeon_cli.models.quantizer import Quantizer
from pigeon_cli.models.scorer import Scorer
from pigeon_cli.models.taste import TasteReader
from pigeon_cli.models.translator import Translator
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.weights.checkpoint import read_part
from pigeon_cli.weights.store import ModelFolder
from pigeon_cli.weights.stored_model import M, StoredModel

C = TypeVar("C")


@dataclass(frozen=True)
class Part(Generic[M]):
    """A named module of a model and how to make it."""

    name: str
    load: Callable[[StoredModel], M]


@dataclass(frozen=True)
class Piece(Part[M]):
    """A part that is also a submodule of another one, and is taken from there when that is in memory."""

    whole: str
    inside: Callable[[Any], M]


def _plain(name: str, build: Callable[[ModelSpec], M]) -> Part[M]:
    return Part(name, lambda model: model.fill(name, lambda: build(model.spec)))


def _piece(name: str, build: Callable[[ModelSpec], M], inside: Callable[[Any], M]) -> Piece[M]:
    ((whole, start),) = MADE_OF[name]
    return Piece(name, lambda model: model.fill(whole, lambda: build(model.spec), start), whole, inside)


def _optional(name: str, config_of: Callable[[ModelSpec], C | None], build: Callable[[C], M]) -> Part[M]:
    """A part that only some models have: those whose configuration describes one."""

    def build_described(spec: ModelSpec) -> M:
        config = config_of(spec)
        if config is None:
            raise WeightsError(f"the model {spec.name} has no {name}", "use a model whose config.json describes one")
        return build(config)

    return _plain(name, build_described)


def _aligned(model: StoredModel) -> LlamaForCausalLM:
    whole = BASE.load(model)
    merge_lora_file(whole, cast(ModelFolder, model), model.spec.language)
    return whole


def _clip(model: StoredModel) -> Any:
    if model.clip is None:
        raise WeightsError("there is no CLIP model to compare pixels with", "type: pigeon download clip-vit-h-14")
    from pigeon_cli.models.encoders import build_clip

    settings = json.loads((model.clip / "config.json").read_text(encoding="utf-8"))
    return model.fill("clip", lambda: build_clip(settings))


TOKENIZER = _plain("tokenizer", lambda spec: VisualTokenizer(spec.tokenizer))
QUANTIZER = _piece(
    "quantizer",
    lambda spec: Quantizer(spec.tokenizer.code_count, spec.tokenizer.code_width),
    lambda tokenizer: tokenizer.quantizer,
)
DECODER = _plain("decoder", lambda spec: EmbeddingDecoder(spec.decoder))
MASK_GENERATOR = _plain("mask_generator", lambda spec: MaskGenerator(spec.mask_generator))
ADAPTER = _plain("adapter", lambda spec: Adapter(spec.adapter))
BASE_ADAPTER = _plain("base_adapter", lambda spec: Adapter(spec.adapter))
"""The adapter that the base model was trained with."""
SCORER = _optional("scorer", lambda spec: spec.scorer, Scorer)
TRANSLATOR = _optional("translator", lambda spec: spec.translator, Translator)
MEMORY = _optional("memory", lambda spec: spec.memory, Memory)
TASTE = _optional("taste", lambda spec: spec.taste, TasteReader)
UNET: Part[UNet] = _plain("unet", lambda spec: build_unet(spec.diffusion, spec.decoder.context_width))
VAE: Part[AutoencoderKL] = _plain("vae", lambda spec: build_vae(spec.diffusion))
BASE: Part[LlamaForCausalLM] = _plain("language", lambda spec: build_language_model(spec.language, spec.vocabulary))
"""The language model without its alignment."""
EMBEDDING: Piece[nn.Module] = _piece(
    "embedding",
    lambda spec: nn.Embedding(spec.vocabulary.size, spec.language.hidden_size),
    lambda language: language.get_input_embeddings(),
)
"""The language model's table alone."""
ALIGNED = Part("aligned language", _aligned)
"""The language model with its LoRA folded in; where weights are mapped, :data:`BASE` with :data:`LORA` beside it."""
LORA = _plain("lora", lambda spec: LowRank(spec.language))
CLIP: Part[Any] = Part("clip", _clip)

_EVERY: dict[str, Part[Any]] = {
    part.name: part
    for part in (
        TOKENIZER, QUANTIZER, DECODER, MASK_GENERATOR, ADAPTER, BASE_ADAPTER, SCORER, TRANSLATOR, MEMORY, TASTE,
        UNET, VAE, BASE, EMBEDDING, ALIGNED, LORA, CLIP,
    )
}  # fmt: skip


class Parts:
    """The parts of one model on one device.

    Without a plan they are in float32, and a part is loaded when it is first used; ``keep`` false lets it go as soon as
    it has worked. With a plan (:meth:`follow`) its steps decide. ``seconds`` is the time spent on loading so far.
    """

    def __init__(self, model: StoredModel, device: DeviceChoice, keep: bool = True) -> None:
        self.model, self.device, self.keep = model, device, keep
        self.plan: Plan | None = None
        self.seconds = 0.0
        self._resident: dict[str, object] = {}
        self._ahead: list[Step] = []

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of the parts in memory."""
        return tuple(self._resident)

    @property
    def precision(self) -> Precision:
        """How weights are kept."""
        return Precision.FLOAT32 if self.plan is None else self.plan.precision

    def follow(self, plan: Plan, device: DeviceChoice) -> None:
        """Carry ``plan`` out from now on, on the device that it names; what is in memory goes first."""
        self.release()
        self.plan, self.device, self._ahead = plan, device, list(plan.steps)

    def release(self) -> None:
        """Let go of what is in memory, and of the rest of the plan, which counts on it."""
        self._ahead = []
        for name in self.resident:
            self._evict(name)

    def enter(self, stage: str) -> None:
        """Load and evict what the plan says up to its stage ``stage``; nothing for a stage that no plan knows."""
        while any(step.kind == "run" and step.name == stage for step in self._ahead):
            step = self._ahead.pop(0)
            if step.kind == "load":
                self._load(_EVERY[step.name])
            elif step.kind == "evict":
                self._evict(step.name)

    def rows(self, stage: str, most: int) -> int:
        """Rows of one batch in ``stage``: ``most``, or fewer where the plan has less room."""
        return most if self.plan is None else max(1, min(most, self.plan.rows(stage)))

    @contextmanager
    def use(self, part: Part[M]) -> Iterator[M]:
        """The module of ``part``, in evaluation mode and without gradients; raises :class:`WeightsError`."""
        if part.name in self._resident:
            yield cast(M, self._resident[part.name])
        elif isinstance(part, Piece) and (part.whole in self._resident or self.plan is None):
            with self.use(_EVERY[part.whole]) as whole:
                yield part.inside(whole)
        else:
            self._load(part)
            try:
                yield cast(M, self._resident[part.name])
            finally:
                if not self.keep and self.plan is None:
                    del self._resident[part.name]

    @contextmanager
    def language(self, aligned: bool) -> Iterator[LlamaForCausalLM]:
        """The language model as it was published, or with its LoRA at work."""
        if aligned and self.model.mapped:
            with self.use(BASE) as model, self.use(LORA) as lora, lora.applied_to(model):
                yield model
        else:
            with self.use(ALIGNED if aligned else BASE) as model:
                yield model

    def _load(self, part: Part[Any]) -> None:
        started = time.perf_counter()
        # Tensors born in inference mode could not be used outside it later.
        with torch.inference_mode(False), torch.no_grad():
            module = cast(nn.Module, part.load(self.model))
            device, quantized = self.device.device, part.name in QUANTIZED
            convert(module, self.precision, device, quantized, self.model.mapped)
            self._resident[part.name] = module.eval().requires_grad_(False)
        self.seconds += time.perf_counter() - started

    def _evict(self, name: str) -> None:
        del self._resident[name]
        # Modules of transformers hold cycles; what is mapped goes with the last tensor of its file.
        gc.collect()
        trim()
        if self.device.device.type == "cuda":
            torch.cuda.empty_cache()


def merge_lora_file(model: LlamaForCausalLM, folder: ModelFolder, config: LanguageConfig) -> None:
    """Fold the adapter of ``folder`` into ``model``: W + alpha / rank * B A for every pair in the file.

    Each target must have exactly its two matrices of the right shapes, both floating, or :class:`WeightsError` names
    the first that has not.
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
    shapes: dict[str, Any] = {
        key: tuple(tensor.shape) if tensor.is_floating_point() else tensor.dtype for key, tensor in found.items()
    }
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
