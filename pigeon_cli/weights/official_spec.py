"""The :class:`ModelSpec` of a folder in the published layout: ours, corrected by what the folder's configurations say.

The published configurations were not seen when our specification was written (NOTES sections 1 and 8), so where they
speak they are right; the sizes in them are proven by the strict loading of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from pigeon_cli.core.configs import DiffusionConfig, LanguageConfig, ModelSpec
from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.published import read_json
from pigeon_cli.weights.spec_file import read_spec

BUNDLED_SPEC = Path(str(files("pigeon_cli"))) / "assets" / "specs" / "lavit-7b-v2.json"
OWN_SPEC = "spec.json"
"""In the folder's root, of a model of other sizes in the same layout; read instead of the bundled one."""

LANGUAGE_CONFIG = "language_model/config.json"
UNET_CONFIG = "highres_pixel_decoding/unet/config.json"
VAE_CONFIG = "highres_pixel_decoding/vae/config.json"
SCHEDULER_CONFIG = "highres_pixel_decoding/scheduler/scheduler_config.json"
CONFIGS = (LANGUAGE_CONFIG, UNET_CONFIG, VAE_CONFIG, SCHEDULER_CONFIG)

LANGUAGE_FIELDS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "max_position_embeddings": "max_positions",
    "rms_norm_eps": "rms_norm_epsilon",
    "tie_word_embeddings": "tie_word_embeddings",
}
"""Fields of transformers' ``LlamaConfig`` to those of :class:`LanguageConfig`."""

FIXED_LANGUAGE_FIELDS: dict[str, tuple[Any, ...]] = {
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_theta": (10000, None),
    "rope_scaling": (None,),
    "rope_parameters": ({"rope_theta": 10000, "rope_type": "default"}, None),
}
"""What this project's LLaMA cannot have otherwise; a field that is not there has its usual value."""

SCHEDULER_FIELDS = frozenset(
    {
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "clip_sample",
        "set_alpha_to_one",
        "steps_offset",
        "prediction_type",
        "thresholding",
        "dynamic_thresholding_ratio",
        "clip_sample_range",
        "sample_max_value",
        "timestep_spacing",
        "rescale_betas_zero_snr",
    }
)
"""Arguments of diffusers' ``DDIMScheduler``; the published configuration may be one of another scheduler, whose own
settings DDIM leaves aside."""


def folder_spec(folder: Path) -> ModelSpec:
    """Specification of the model in ``folder``; raises :class:`WeightsError` that names a configuration and a field."""
    own = folder / OWN_SPEC
    spec = read_spec(own if own.is_file() else BUNDLED_SPEC)
    return replace(
        spec, language=_language(folder / LANGUAGE_CONFIG, spec.language), diffusion=_diffusion(folder, spec.diffusion)
    )


def _language(path: Path, ours: LanguageConfig) -> LanguageConfig:
    published = read_json(path)
    known: dict[str, Any] = {mine: published[theirs] for theirs, mine in LANGUAGE_FIELDS.items() if theirs in published}
    found = replace(ours, **known)
    fixed = {**FIXED_LANGUAGE_FIELDS, "num_key_value_heads": (found.heads, None)}
    for name, usual in fixed.items():
        if name in published and published[name] not in usual:
            raise WeightsError(
                f"{path} has {name} = {published[name]!r}, this model needs {usual[0]!r}",
                "use the language model of LaVIT-7B-v2",
            )
    return found


def _diffusion(folder: Path, ours: DiffusionConfig) -> DiffusionConfig:
    scheduler = _arguments(folder / SCHEDULER_CONFIG)
    return replace(
        ours,
        unet=_arguments(folder / UNET_CONFIG),
        vae=_arguments(folder / VAE_CONFIG),
        scheduler={name: value for name, value in scheduler.items() if name in SCHEDULER_FIELDS},
    )


def _arguments(path: Path) -> Mapping[str, Any]:
    """A configuration of diffusers without the notes that it keeps on itself."""
    return {name: value for name, value in read_json(path).items() if not name.startswith("_")}
