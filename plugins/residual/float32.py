"""A stream in float32: stream + f(stream), summed in float32 whatever the weights are kept in.

As Mamba keeps it (Gu & Dao 2023, arXiv:2312.00752): in bfloat16 a large stream takes no note of what a late layer adds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

from lamina.core import ComponentConfig, Register, Residual, hookimpl


class Float32(Residual):
    """Adds what the sublayer found, of which nothing is rounded away; sublayers read the stream rounded."""

    Config = ComponentConfig
    paper = "Gu & Dao 2023, arXiv:2312.00752"

    def __init__(self) -> None:
        super().__init__()
        # Has no numbers: it goes along where the weights go, and so tells what they are kept in.
        self.like = nn.Buffer(torch.empty(0), persistent=False)

    @classmethod
    def stream(cls, config: ComponentConfig) -> Hashable:
        return "float32"

    def widen(self, x: Tensor) -> Tensor:
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def narrow(self, stream: Tensor) -> Tensor:
        return stream.to(self.like.dtype)

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return stream + sublayer(self.narrow(stream))


@hookimpl
def register_components(register: Register) -> None:
    register("float32", Float32)
