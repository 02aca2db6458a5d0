"""GELU by its tanh approximation: y = x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))).

Hendrycks & Gimpel 2016, arXiv:1606.08415. Elsewhere called gelu_new, gelu_fast and gelu_pytorch_tanh.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lamina.core import Activation, Register, hookimpl


class GELUTanh(Activation):
    """The approximation GPT-2 and Gemma were trained with."""

    paper = "Hendrycks & Gimpel 2016, arXiv:1606.08415"

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")

    def lower(self) -> str:
        return "gelu_tanh"


@hookimpl
def register_components(register: Register) -> None:
    register("gelu_tanh", GELUTanh)
