"""Fixed pattern of the Sparse Transformer: the token's own block, and the last few tokens of every block before it.

Child et al. 2019, arXiv:1904.10509, section 4.3. With l = stride and c = summary the paper names two sets of keys,

    block:  floor(k / l) = floor(q / l)          summary:  k mod l >= l - c

and gives one to each head, or each layer, in turn, or their union to every head. Heads of a layer share one mask here,
so `part: both` is the union, and two kinds of block with a part each take turns by layer. A token that is no summary
sees itself besides. Blocks are counted from the beginning of the document.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from lamina.core import ALWAYS_DENSE, ComponentConfig, ConfigProblem, Mask, Register, hookimpl


class FixedConfig(ComponentConfig):
    stride: int = Field(gt=0, description="Tokens of a block.")
    summary: int = Field(gt=0, description="Tokens at the end of a block that all later ones see.")
    part: Literal["both", "block", "summary"] = Field(
        "both", description="block: the token's own block. summary: the ends of blocks. both: the union."
    )

    def derive(self) -> dict[str, Any]:
        if self.summary > self.stride:
            raise ConfigProblem(
                "summary", f"a block of {self.stride} tokens has no {self.summary} last ones", "lower it"
            )
        return {}


class Fixed(Mask):
    """k in the block of q, or k mod stride >= stride - summary."""

    Config = FixedConfig
    paper = "Child et al. 2019, arXiv:1904.10509"

    def __init__(self, config: FixedConfig) -> None:
        self.stride, self.summary, self.part = config.stride, config.summary, config.part

    @property
    def pattern(self) -> tuple[object, ...]:
        return Fixed, self.stride, self.summary, self.part

    @property
    def reach(self) -> int | None:
        return self.stride if self.part == "block" else None

    @property
    def fills_reach(self) -> bool:
        return self.reach == 1

    @property
    def dense_up_to(self) -> float:
        if self.part != "block" and self.summary == self.stride:
            return ALWAYS_DENSE
        return 1 if self.part == "summary" else self.stride

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        block = q_positions // self.stride == k_positions // self.stride
        summary = k_positions % self.stride >= self.stride - self.summary
        if self.part == "summary":
            return summary | (q_positions == k_positions)
        return block | summary if self.part == "both" else block


@hookimpl
def register_components(register: Register) -> None:
    register("fixed", Fixed)
