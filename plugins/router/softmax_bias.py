"""Softmax scores with a bias that evens the load: p = softmax(W·x), the k largest p_i + b_i chosen,
weights p_i / Σ_chosen p · scale.

ERNIE 4.5 so, with renormalised weights; LongCat-Flash (Meituan 2025, arXiv:2509.01322) without. The bias moves as in
Wang et al. 2024, arXiv:2408.15664.
"""

from __future__ import annotations

from lamina.core import BiasedTopK, BiasedTopKConfig, Register, hookimpl


class SoftmaxBias(BiasedTopK):
    """Experts compete for each token, and the bias helps those that win too seldom."""

    Config = BiasedTopKConfig
    paper = "Meituan LongCat Team 2025, arXiv:2509.01322"
    score = "softmax"


@hookimpl
def register_components(register: Register) -> None:
    register("softmax_bias", SoftmaxBias)
