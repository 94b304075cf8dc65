"""A LoRA that lies beside the language model instead of being folded in, so that mapped weights stay as they are.

Folded into the 7B model it would make 2 GB of new weights beside the 14 GB that are mapped; beside it, the base model
and the aligned one are the same weights in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import LanguageConfig

_BLOCKS: Final = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), "self_attn"),
    **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp"),
}
_PREFIX: Final = "base_model.model."
"""Before the language model's own names in the files of peft."""


class LowRank(nn.Module):
    """The two matrices of every target layer, by the key names of the released files."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.scale = config.lora_alpha / config.lora_rank
        self.targets: list[str] = []
        for layer in range(config.layers):
            for target in config.lora_targets:
                name = f"model.layers.{layer}.{_BLOCKS[target]}.{target}"
                entering, leaving = _widths(target, config)
                _place(self, f"{_PREFIX}{name}.lora_A", nn.Linear(entering, config.lora_rank, bias=False))
                _place(self, f"{_PREFIX}{name}.lora_B", nn.Linear(config.lora_rank, leaving, bias=False))
                self.targets.append(name)

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        """Inside, ``model`` computes W x + alpha / rank * B A x in every target layer, whatever holds its W."""
        handles = [model.get_submodule(name).register_forward_hook(self._hook(name)) for name in self.targets]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Any:
        sides = (self.get_submodule(f"{_PREFIX}{name}.lora_{side}").weight for side in "AB")
        first, second = (cast(Tensor, weight) for weight in sides)

        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + self.scale * functional.linear(functional.linear(inputs[0], first), second)

        return add


def _widths(target: str, config: LanguageConfig) -> tuple[int, int]:
    inner, outer = config.intermediate_size, config.hidden_size
    if _BLOCKS[target] == "self_attn":
        return outer, outer
    return (inner, outer) if target == "down_proj" else (outer, inner)


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    *path, last = name.split(".")
    for step in path:
        if step not in root._modules:
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    root.add_module(last, module)
