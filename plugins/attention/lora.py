"""Adapters on the projections of any attention: y = W·x + (alpha / rank) · B·A·x, W frozen.

Hu et al. 2021, arXiv:2106.09685.
"""

from __future__ import annotations

from lamina.core import Attention, AttentionWrapper, LoRAConfig, Part, Register, adapt, hookimpl, slot


class AttentionLoRAConfig(LoRAConfig):
    wraps: Part = slot("attention", description="The attention that is adapted; its own weights are frozen.")


class AttentionLoRA(AttentionWrapper):
    """Trains an attention through low-rank adapters."""

    Config = AttentionLoRAConfig
    paper = "Hu et al. 2021, arXiv:2106.09685"

    def __init__(self, config: AttentionLoRAConfig, wraps: Attention) -> None:
        super().__init__(config, wraps)
        self.adapted = adapt(wraps, config)

    def init_weights(self, std: float) -> None:
        for layer in self.adapted:
            layer.start()


@hookimpl
def register_components(register: Register) -> None:
    register("lora", AttentionLoRA)
