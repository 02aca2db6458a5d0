"""Adafactor: a matrix's mean squared gradient kept as row and column means.  Shazeer & Stern 2018, arXiv:1804.04235.

v̂ = r cᵀ / mean(r),  u = g / √v̂,  û = u / max(1, rms(u) / clip),  w ← w - max(eps, rms(w)) · min(lr, 1/√t) · û.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from lamina.core import ComponentConfig, Optimizer, Register, decay_groups, hookimpl

if TYPE_CHECKING:
    import torch
    from torch import nn


FLOOR = 1e-15  # its square is the paper's 1e-30, below which no mean square falls; torch's own 1e-7 is a usual gradient


class AdafactorConfig(ComponentConfig):
    decay: float = Field(
        -0.8, le=0, description="The mean squares keep 1 - t^decay of the past at step t: longer and longer memory."
    )
    eps: float = Field(1e-3, gt=0, description="Least size a weight's step is measured by.")
    clip: float = Field(1.0, ge=1, description="Largest root mean square of one parameter's update.")
    weight_decay: float = Field(0.0, ge=0, description="Pull of matrices towards zero, times the learning rate.")


class Adafactor(Optimizer):
    """torch's Adafactor: state of the size of rows plus columns, steps relative to each parameter's size, so it wants a
    larger learning rate than AdamW (0.01). Gains and biases are not decayed."""

    Config = AdafactorConfig
    paper = "Shazeer & Stern 2018, arXiv:1804.04235"

    def __init__(self, config: AdafactorConfig) -> None:
        self.config = config

    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        import torch  # here, so that the plugin lists without it

        config = self.config
        return torch.optim.Adafactor(
            decay_groups(parameters, config.weight_decay),
            lr=learning_rate, beta2_decay=config.decay, eps=(FLOOR, config.eps), d=config.clip,
        )  # fmt: skip


@hookimpl
def register_components(register: Register) -> None:
    register("adafactor", Adafactor)
