"""AdamW: Adam with weight decay apart from the gradient.  Loshchilov & Hutter 2017, arXiv:1711.05101.

m ← β₁m + (1-β₁)g,  v ← β₂v + (1-β₂)g²,  w ← w - lr · (m̂ / (√v̂ + eps) + weight_decay · w).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lamina.core import ComponentConfig, Optimizer, Register, decay_groups, hookimpl

if TYPE_CHECKING:
    import torch
    from torch import nn

FUSED_ON = {"cpu", "cuda", "mps", "xpu"}  # one kernel for the whole update exists here
Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamWConfig(ComponentConfig):
    # Not strict: YAML has lists and no tuples.
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.95), strict=False, description="Decay of the running means of the gradient and of its square."
    )
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second mean.")
    weight_decay: float = Field(0.1, ge=0, description="Pull of matrices towards zero, times the learning rate.")


class AdamW(Optimizer):
    """torch's AdamW, fused where the device has it. Gains and biases are not decayed."""

    Config = AdamWConfig
    paper = "Loshchilov & Hutter 2017, arXiv:1711.05101"

    def __init__(self, config: AdamWConfig) -> None:
        self.config = config

    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        import torch  # here, so that the plugin lists without it

        config, named = self.config, list(parameters)
        fused = all(parameter.device.type in FUSED_ON for _, parameter in named)
        groups = decay_groups(named, config.weight_decay)
        return torch.optim.AdamW(groups, lr=learning_rate, betas=config.betas, eps=config.eps, fused=fused)


@hookimpl
def register_components(register: Register) -> None:
    register("adamw", AdamW)
