"""DeepNorm: α · stream + f(stream), for a norm after it and weights that start smaller by β.

α = (2 N)^(1/4) and β = (8 N)^(-1/4) for a decoder of N layers.  Wang et al. 2022, arXiv:2203.00555. β multiplies the
initial values, output and ffn projections, not queries and keys. Use it with `placement: post`; the paper scales
nothing else by depth, which is `init: {scale_out: false}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, Register, Residual, hookimpl


class DeepNormConfig(ComponentConfig):
    alpha: float | None = Field(None, gt=0, description="Multiplies the stream. Default: (2 · n_layers)^(1/4).")
    beta: float | None = Field(
        None, gt=0, description="Multiplies the sublayer's initial weights. Default: (8 · n_layers)^(-1/4)."
    )

    def derive(self, n_layers: int) -> dict[str, Any]:
        derived = {"alpha": (2 * n_layers) ** 0.25, "beta": (8 * n_layers) ** -0.25}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}


class DeepNorm(Residual):
    """Bounds how far one step can move the output of a decoder of any depth that norms after its sublayers."""

    Config = DeepNormConfig
    paper = "Wang et al. 2022, arXiv:2203.00555"

    def __init__(self, config: DeepNormConfig) -> None:
        super().__init__()
        assert config.alpha is not None, "set by derive"
        assert config.beta is not None, "set by derive"
        self.alpha, self.beta = config.alpha, config.beta

    @property
    def gain(self) -> float:
        return self.beta

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.add(sublayer(stream), stream, alpha=self.alpha)


@hookimpl
def register_components(register: Register) -> None:
    register("deepnorm", DeepNorm)
