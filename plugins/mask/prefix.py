"""Prefix LM: the first `length` tokens of a document see one another, those after them see what came before.

Raffel et al. 2020 (T5), arXiv:1910.10683, section 3.2.1; Wang et al. 2022, arXiv:2204.05832.

A prefix token has seen the token it would predict, so the loss on the prefix says nothing, and generation begins behind
it: a prompt holds the whole prefix, and a cache is given the whole prefix of a document in one call. Other calls and
shorter prompts are refused.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lamina.core import ALWAYS_DENSE, ComponentConfig, Mask, Register, hookimpl


class PrefixConfig(ComponentConfig):
    length: int = Field(gt=0, description="Tokens at the beginning of a document that see one another.")


class Prefix(Mask):
    """k <= q, or k < length."""

    Config = PrefixConfig
    paper = "Raffel et al. 2020, arXiv:1910.10683"
    causal = False

    def __init__(self, config: PrefixConfig) -> None:
        self.length = config.length

    @property
    def pattern(self) -> tuple[object, ...]:
        return Prefix, self.length

    @property
    def dense_up_to(self) -> float:
        return ALWAYS_DENSE

    @property
    def lookahead(self) -> float:
        return self.length if self.length > 1 else 0

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return (k_positions <= q_positions) | (k_positions < self.length)


@hookimpl
def register_components(register: Register) -> None:
    register("prefix", Prefix)
