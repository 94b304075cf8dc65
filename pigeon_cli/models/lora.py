"""Low-rank adapters (peft) on the language model, for training.

Adapter tensors go by the key names of the released files, which carry no adapter name (DESIGN.md section 2,
"Personalizer").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import LlamaForCausalLM

from pigeon_cli.core.configs import LanguageConfig
from pigeon_cli.core.errors import WeightsError

POLICY, REFERENCE = "default", "reference"
"""Adapter names: the one in use and trained, and its frozen copy for preference alignment."""

LanguageModel = LlamaForCausalLM | PeftModel


def attach_lora(model: LanguageModel, config: LanguageConfig, adapter_name: str = POLICY) -> PeftModel:
    """Put a fresh adapter (no effect until trained or loaded) on ``model`` in place and activate it.

    All other parameters are frozen.
    """
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    training = model.training
    if isinstance(model, PeftModel):
        model.add_adapter(adapter_name, settings)
        model.set_adapter(adapter_name)
        wrapped = model
    else:
        wrapped = cast(PeftModel, get_peft_model(model, settings, adapter_name=adapter_name))
    # New layers arrive in training mode: their dropout would run in a model that is being evaluated.
    wrapped.train(training)
    return wrapped


def lora_state(model: PeftModel, adapter_name: str = POLICY) -> dict[str, Tensor]:
    """Tensors of one adapter under the key names of the released files."""
    return cast(
        dict[str, Tensor],
        get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False),
    )


def load_lora(model: PeftModel, tensors: Mapping[str, Tensor], adapter_name: str = POLICY) -> None:
    """Fill one adapter; raises :class:`WeightsError` unless keys and shapes are exactly those of the adapter."""
    expected = {key: tuple(value.shape) for key, value in lora_state(model, adapter_name).items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if expected != found:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise WeightsError(
            f"the adapter does not fit the language model: {len(wrong)} tensors differ, first {wrong[0]}",
            "use the adapter that was trained for this model",
        )
    set_peft_model_state_dict(model, dict(tensors), adapter_name=adapter_name)


def add_reference_adapter(model: PeftModel, config: LanguageConfig) -> None:
    """Add a frozen copy of the policy adapter, the reference of preference alignment; the policy stays active."""
    attach_lora(model, config, REFERENCE)
    load_lora(model, lora_state(model, POLICY), REFERENCE)
    model.set_adapter(POLICY)


@contextmanager
def active_adapter(model: PeftModel, adapter_name: str | None) -> Iterator[PeftModel]:
    """Run with another adapter, or with ``None`` as the bare base model; what is trainable does not change."""
    if adapter_name is None:
        with model.disable_adapter():
            yield model
        return
    before = model.active_adapter
    trainable = {name: value.requires_grad for name, value in model.named_parameters()}
    _switch(model, adapter_name, trainable)
    try:
        yield model
    finally:
        _switch(model, before, trainable)


def _switch(model: PeftModel, adapter_name: str, trainable: Mapping[str, bool]) -> None:
    # peft makes whatever adapter it activates trainable and freezes the others.
    model.set_adapter(adapter_name)
    for name, value in model.named_parameters():
        value.requires_grad_(trainable[name])
