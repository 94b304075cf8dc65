"""The language model as both stages of alignment train it: a frozen base with a LoRA on it."""

from __future__ import annotations

from peft import PeftModel
from torch import nn

from pigeon_cli.models.language import build_language_model, recompute_activations
from pigeon_cli.models.lora import attach_lora
from pigeon_cli.weights.store import ModelFolder
from pigeon_cli.weights.tied import load_language


def base_with_lora(folder: ModelFolder, gradient_checkpointing: bool) -> tuple[PeftModel, nn.Module]:
    """The model folder's base under a LoRA that changes nothing yet, on the CPU, and its table of input embeddings."""
    spec = folder.spec
    base = build_language_model(spec.language, spec.vocabulary)
    load_language(base, folder.part("language"))
    if gradient_checkpointing:
        recompute_activations(base)
    return attach_lora(base, spec.language), base.get_input_embeddings()
