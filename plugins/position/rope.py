"""Rotary positions: the pair i of a query or key at position t is turned by the angle t · theta^(-2i/d).

Su et al. 2021, arXiv:2104.09864. The product of a turned query and a turned key depends on their distance alone.
Two layouts of the pairs are in use and give different models from the same weights: `half` pairs channel i with
i + d/2 (Llama, GPT-NeoX), `interleaved` pairs 2i with 2i + 1 (the paper, GPT-J, DeepSeek). A `scaling` changes the
frequencies, and sometimes the size of turned channels, to serve longer texts.
"""

from __future__ import annotations

from lamina.core import Register, Rotary, RotaryConfig, hookimpl


class RoPEConfig(RotaryConfig):
    pass


class RoPE(Rotary):
    """Turns queries and keys by their position."""

    Config = RoPEConfig
    paper = "Su et al. 2021, arXiv:2104.09864"


@hookimpl
def register_components(register: Register) -> None:
    register("rope", RoPE)
