"""LAuReL-LR: stream + f(stream) + norm(B A x), a low-rank path beside the sublayer.  Menghani et al. 2024,
arXiv:2411.07501.

x is the stream, or norm_in(stream). Gemma 3n adds x itself too and weighs the sum: with `norm_in` and `norm` an rms,
`add_input: true` and `factor: 0.7071067811865476` it is factor · (stream + f(stream) + x + norm(B A x)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, Linear, Norm, Part, Register, Residual, hookimpl, slot


class LaurelConfig(ComponentConfig):
    rank: int | None = Field(None, gt=0, description="Narrowest width of the path. Default: dim / 32, at least 1.")
    norm_in: Part | None = slot("norm", None, description="On what the path reads.")
    norm: Part | None = slot("norm", None, description="On what the path gives.")
    add_input: bool = Field(False, description="Whether the path adds what it reads, too.")
    factor: float = Field(1.0, description="Multiplies the sum of all.")

    def derive(self, dim: int) -> dict[str, Any]:
        return {"rank": max(1, dim // 32)} if self.rank is None else {}


class Laurel(Residual):
    """Lets the stream change on its way past a sublayer, for few parameters."""

    Config = LaurelConfig
    paper = "Menghani et al. 2024, arXiv:2411.07501"

    def __init__(self, config: LaurelConfig, dim: int, norm_in: Norm | None = None, norm: Norm | None = None) -> None:
        super().__init__()
        assert config.rank is not None, "set by derive"
        self.add_input, self.factor = config.add_input, config.factor
        self.norm_in, self.norm = norm_in, norm
        self.down = Linear(dim, config.rank, bias=False)
        self.up = Linear(config.rank, dim, bias=False)

    @classmethod
    def parts(cls, config: LaurelConfig, dim: int) -> dict[str, Any]:
        return {name: part.at(size=dim) if (part := getattr(config, name)) else None for name in ("norm_in", "norm")}

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        read = stream if self.norm_in is None else self.norm_in(stream)
        path: Tensor = self.up(self.down(read))
        out = stream + sublayer(stream) + (path if self.norm is None else self.norm(path))
        if self.add_input:
            out = out + read
        return out if self.factor == 1.0 else out * self.factor


@hookimpl
def register_components(register: Register) -> None:
    register("laurel", Laurel)
