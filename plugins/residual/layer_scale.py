"""LayerScale: stream + γ ⊙ f(stream), with a learned factor for each channel.  Touvron et al. 2021, arXiv:2103.17239.

`learn_stream` weighs the channels of the stream too, as Doge and Zaya do: λ ⊙ stream + γ ⊙ f(stream).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import ComponentConfig, Register, Residual, hookimpl


class LayerScaleConfig(ComponentConfig):
    start: float = Field(
        1e-5, description="γ at the start; the paper takes 0.1 up to 18 layers, 1e-5 up to 24 and 1e-6 beyond."
    )
    learn_stream: bool = Field(False, description="Learn a factor for each channel of the stream, from 1.")


class LayerScale(Residual):
    """Weighs each channel of what a sublayer adds, next to nothing at first."""

    Config = LayerScaleConfig
    paper = "Touvron et al. 2021, arXiv:2103.17239"

    def __init__(self, config: LayerScaleConfig, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), config.start))
        self.stream_gamma = nn.Parameter(torch.ones(dim)) if config.learn_stream else None

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        out = sublayer(stream)
        if self.stream_gamma is not None:
            stream = stream * self.stream_gamma.to(stream.dtype)
        return torch.addcmul(stream, out, self.gamma.to(stream.dtype))


@hookimpl
def register_components(register: Register) -> None:
    register("layer_scale", LayerScale)
