"""Adapters on the projections of any ffn: y = W·x + (alpha / rank) · B·A·x, W frozen.

Hu et al. 2021, arXiv:2106.09685.
"""

from __future__ import annotations

from lamina.core import FFN, FFNWrapper, LoRAConfig, Part, Register, adapt, hookimpl, slot


class FFNLoRAConfig(LoRAConfig):
    wraps: Part = slot("ffn", description="The ffn that is adapted; its own weights are frozen.")


class FFNLoRA(FFNWrapper):
    """Trains an ffn through low-rank adapters."""

    Config = FFNLoRAConfig
    paper = "Hu et al. 2021, arXiv:2106.09685"

    def __init__(self, config: FFNLoRAConfig, wraps: FFN) -> None:
        super().__init__(config, wraps)
        self.adapted = adapt(wraps, config)

    def init_weights(self, std: float) -> None:
        for layer in self.adapted:
            layer.start()


@hookimpl
def register_components(register: Register) -> None:
    register("lora", FFNLoRA)
