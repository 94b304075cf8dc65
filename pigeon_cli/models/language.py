"""The language model: transformers' LLaMA in the sizes of :class:`LanguageConfig`.

Source: DESIGN.md section 2, "Personalizer". Adapters for training live in :mod:`pigeon_cli.models.lora`, so that
drawing never imports peft.
"""

from __future__ import annotations

from transformers import LlamaConfig, LlamaForCausalLM

from pigeon_cli.core.configs import LanguageConfig
from pigeon_cli.core.vocabulary import Vocabulary


def recompute_activations(model: LlamaForCausalLM) -> None:
    """Keep one activation per layer while training and compute the others again for the gradient: much less memory.

    Only in training mode; losses and gradients stay what they are.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def build_language_model(config: LanguageConfig, vocabulary: Vocabulary) -> LlamaForCausalLM:
    """A LLaMA with one embedding row per id of ``vocabulary``; weights are random until they are loaded."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary.size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.max_positions,
            rms_norm_eps=config.rms_norm_epsilon,
            tie_word_embeddings=config.tie_word_embeddings,
            bos_token_id=1,
            eos_token_id=vocabulary.image_end,
            pad_token_id=vocabulary.pad,
        )
    )
