"""Scores of the square root of a softplus, with a bias that evens the load: s = √ln(1 + exp(W·x)),
the k largest s_i + b_i chosen, weights s_i / Σ_chosen s · scale.

DeepSeek-V4. Unlike a sigmoid the score has no upper end. The bias moves as in Wang et al. 2024, arXiv:2408.15664.
"""

from __future__ import annotations

from lamina.core import BiasedTopK, BiasedTopKConfig, Register, hookimpl


class SqrtSoftplusBias(BiasedTopK):
    """Grows like the root of a large logit, so that one expert seldom takes all of a token."""

    Config = BiasedTopKConfig
    paper = "DeepSeek-AI, DeepSeek-V4"
    score = "sqrt_softplus"


@hookimpl
def register_components(register: Register) -> None:
    register("sqrt_softplus_bias", SqrtSoftplusBias)
