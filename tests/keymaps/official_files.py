"""A model in the published layout, two layers deep and a few numbers wide, filled by the weight rule.

The names come from the manifests of the published program, the shapes from our modules (a test holds these against the
manifests at full width), the values from the rule, so every tensor has values of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pigeon_cli.core.configs import (
    AdapterConfig,
    DiffusionConfig,
    EmbeddingDecoderConfig,
    LanguageConfig,
    MaskGeneratorConfig,
    ModelSpec,
    VisualTokenizerConfig,
)
from pigeon_cli.core.vocabulary import Vocabulary
from pigeon_cli.models.adapter import Adapter
from pigeon_cli.models.diffusion import build_unet, build_vae
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.language import build_language_model
from pigeon_cli.models.low_rank import LowRank
from pigeon_cli.models.mask_generator import MaskGenerator
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.weights import keymaps
from pigeon_cli.weights.keymaps import KeyMap, Target
from pigeon_cli.weights.official import OfficialFolder
from pigeon_cli.weights.official_spec import (
    LANGUAGE_CONFIG,
    LANGUAGE_FIELDS,
    OWN_SPEC,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    VAE_CONFIG,
)
from pigeon_cli.weights.spec_file import spec_text
from tests.parity.golden import golden_weight

MANIFESTS = Path(__file__).parent / "manifest"
MANIFEST_OF = {
    "eva_vitg_psz14.bin": keymaps.ENCODER,
    "tokenizer_encoder.bin": keymaps.SELECTOR_MERGER_QUANTIZER,
    "highres_tokenizer_decoder.bin": keymaps.DECODER,
    "language_model": keymaps.LANGUAGE,
    "mask_generator": keymaps.MASK_GENERATOR,
    "adapter": keymaps.ADAPTER,
    "lora_llama_adapter": keymaps.LORA,
}
COMPONENT_OF = {
    keymaps.ENCODER.files: "eva",
    keymaps.SELECTOR_MERGER_QUANTIZER.files: "tok",
    keymaps.DECODER.files: "hires",
    keymaps.LANGUAGE.files: "llama",
    keymaps.UNET.files: "unet",
    keymaps.VAE.files: "vae",
    keymaps.MASK_GENERATOR.files: "mask",
    keymaps.ADAPTER.files: "adapter",
    keymaps.LORA.files: "lora",
}
"""Names of the weight rule."""

BUILDERS: dict[str, Callable[[ModelSpec], Any]] = {
    "tokenizer": lambda spec: VisualTokenizer(spec.tokenizer),
    "decoder": lambda spec: EmbeddingDecoder(spec.decoder),
    "language": lambda spec: build_language_model(spec.language, spec.vocabulary),
    "unet": lambda spec: build_unet(spec.diffusion, spec.decoder.context_width),
    "vae": lambda spec: build_vae(spec.diffusion),
    "mask_generator": lambda spec: MaskGenerator(spec.mask_generator),
    "adapter": lambda spec: Adapter(spec.adapter),
}
LOADERS = {**BUILDERS, keymaps.LORA.part: lambda spec: LowRank(spec.language)}
"""What a model in the published layout is made of, its LoRA included."""
DEPTH = 2
IGNORED_SHAPE = (3,)
PUBLISHED_EPSILON = 1e-6
"""Differs from what our specification assumes: the folder's own configuration must win."""


def loaded(folder: OfficialFolder, part: str) -> Any:
    """The module of ``part`` as commands load it; ``lora`` is the one that lies beside the language model."""
    build = LOADERS[part]
    return folder.fill(part, lambda: build(folder.spec))


def tiny_spec() -> ModelSpec:
    width = 16
    return ModelSpec(
        name="lavit-7b-v2",
        vocabulary=Vocabulary(40, 24),
        tokenizer=VisualTokenizerConfig(28, 14, width, DEPTH, 2, DEPTH, 2, 24, 8),
        decoder=EmbeddingDecoderConfig(8, width, DEPTH, 2, 4, (6, 10), 10),
        mask_generator=MaskGeneratorConfig(32, 4, 1, 24, 7),
        adapter=AdapterConfig(16, 12, 32),
        language=LanguageConfig(32, 48, DEPTH, 4, 64, lora_rank=3, lora_alpha=6),
        diffusion=_tiny_diffusion(),
    )


def _tiny_diffusion() -> DiffusionConfig:
    unet = {
        "sample_size": 8,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": [1, 2],
        "norm_num_groups": 4,
        "use_linear_projection": True,
        "transformer_layers_per_block": 1,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 58,
    }
    vae = {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "block_out_channels": [4, 8],
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "scaling_factor": 0.13025,
    }
    return DiffusionConfig(unet, vae, {"prediction_type": "epsilon", "timestep_spacing": "leading"})


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Published keys and shapes of one manifest."""
    data = json.loads((MANIFESTS / f"{name}.json").read_text(encoding="utf-8"))
    return {key: tuple(shape) for key, shape in data["keys"].items()}


def lora_shapes(language: LanguageConfig) -> dict[str, tuple[int, int]]:
    """Published LoRA keys of square projections and their shapes."""
    rank, width = language.lora_rank, language.hidden_size
    return {
        f"base_model.model.model.layers.{layer}.self_attn.{target}.lora_{side}.weight": shape
        for layer in range(language.layers)
        for target in language.lora_targets
        for side, shape in {"A": (rank, width), "B": (width, rank)}.items()
    }


def shapes_of(part: str, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Our keys of ``part`` and their shapes."""
    if part == "lora":
        return dict(lora_shapes(spec.language))
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in BUILDERS[part](spec).state_dict().items()}


def published_shapes(keymap: KeyMap, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of one published set at the sizes of ``spec``; what nobody reads is as wide as in its manifest.

    At the sizes of LaVIT-7B-v2 it is the manifest itself (a test says so), with fewer layers what is left of it.
    """
    ours = shapes_of(keymap.part, spec)
    names = [name for name, entry in MANIFEST_OF.items() if entry is keymap]
    if not names:
        return ours
    shapes = {}
    for key, published in manifest(names[0]).items():
        place = keymap.place(key)
        if not isinstance(place, Target):
            shapes[key] = published
        elif place.key in ours:
            shapes[key] = ours[place.key]
    return shapes


def published_tensors(keymap: KeyMap, spec: ModelSpec) -> dict[str, Tensor]:
    """Content of one published file at the sizes of ``spec``; what nobody reads is small."""
    shapes = published_shapes(keymap, spec)
    if keymap is keymaps.LANGUAGE:
        shapes["model.layers.0.self_attn.rotary_emb.inv_freq"] = IGNORED_SHAPE
    tensors = {}
    for key, published in shapes.items():
        shape = published if isinstance(keymap.place(key), Target) else IGNORED_SHAPE
        tensors[key] = torch.from_numpy(golden_weight(0, f"{COMPONENT_OF[keymap.files]}/{key}", shape))
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One file, by its ending; a file that is there goes first, since another name may be linked to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if path.suffix == ".bin":
        torch.save(dict(tensors), path)
    else:
        save_file(dict(tensors), path)


def read_back(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True) if path.suffix == ".bin" else load_file(path)


def write_set(folder: Path, keymap: KeyMap, spec: ModelSpec, ending: str, sharded: bool = False) -> list[Path]:
    """One published set as a file, or as two shards with an index; the last name is that of pickles."""
    stem = folder / keymap.files[-1 if ending == ".bin" else 0]
    tensors = published_tensors(keymap, spec)
    if not sharded:
        write_tensors(stem.with_name(stem.name + ending), tensors)
        return [stem.with_name(stem.name + ending)]
    names = sorted(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    shards = [stem.with_name(f"{stem.name}-{number:05}-of-00002{ending}") for number in (1, 2)]
    for shard, half in zip(shards, halves, strict=True):
        write_tensors(shard, {name: tensors[name] for name in half})
    table = {name: shard.name for shard, half in zip(shards, halves, strict=True) for name in half}
    index = stem.with_name(f"{stem.name}{ending}.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}), encoding="utf-8")
    return shards


def write_model(folder: Path, ending: str = ".bin", sharded: bool = False, spec: ModelSpec | None = None) -> Path:
    """A complete model; ``sharded`` is for the language model and the UNet, the only ones that ever are."""
    spec = spec or tiny_spec()
    for keymap in keymaps.MODEL_FILES:
        split = sharded and keymap in (keymaps.LANGUAGE, keymaps.UNET)
        write_set(folder, keymap, spec, ending, split)
    (folder / "language_model" / "tokenizer.model").write_bytes(b"not read here")
    (folder / OWN_SPEC).write_text(spec_text(spec), encoding="utf-8")
    language = {theirs: getattr(spec.language, ours) for theirs, ours in LANGUAGE_FIELDS.items()}
    language |= {
        "model_type": "llama",
        "rms_norm_eps": PUBLISHED_EPSILON,
        "rope_scaling": None,
        "vocab_size": spec.vocabulary.size,
    }
    euler = {"_class_name": "EulerDiscreteScheduler", "interpolation_type": "linear", "steps_offset": 1}
    configs: dict[str, Mapping[str, Any]] = {
        LANGUAGE_CONFIG: language,
        UNET_CONFIG: {"_class_name": "UNet2DConditionModel", **spec.diffusion.unet},
        VAE_CONFIG: {"_diffusers_version": "0.20.0", **spec.diffusion.vae},
        SCHEDULER_CONFIG: {**euler, "prediction_type": "v_prediction"},
    }
    for name, content in configs.items():
        write_json(folder / name, content)
    return folder


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_stage_one(checkpoint: Path, ending: str = ".bin", spec: ModelSpec | None = None) -> Path:
    """``mask_generator``, ``adapter`` and ``llama``, with what the trainer leaves beside them."""
    for keymap in (keymaps.MASK_GENERATOR, keymaps.ADAPTER):
        write_set(checkpoint, keymap, spec or tiny_spec(), ending)
    write_lora(checkpoint / "llama", ending, spec)
    (checkpoint / "training_args.bin").write_bytes(b"never read")
    return checkpoint


def write_lora(folder: Path, ending: str = ".bin", spec: ModelSpec | None = None, **changed: Any) -> Path:
    """A LoRA as peft saves it; ``changed`` are fields of its configuration."""
    spec = spec or tiny_spec()
    write_set(folder, keymaps.LORA, spec, ending)
    language = spec.language
    fields: dict[str, Any] = json.loads((MANIFESTS / "adapter_config_fields.json").read_text(encoding="utf-8"))
    del fields["note"]
    fields |= {"r": language.lora_rank, "lora_alpha": language.lora_alpha, "use_rslora": False, "alpha_pattern": {}}
    write_json(folder / "adapter_config.json", fields | changed)
    return folder
