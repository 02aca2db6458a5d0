"""Sigmoid scores with a bias that evens the load: s = sigmoid(W·x), the k largest s_i + b_i chosen,
weights s_i / Σ_chosen s · scale. With groups, only experts of the best groups may be chosen.

DeepSeek-V3 (2024, arXiv:2412.19437). After each step b moves by a fixed rate up for experts that got less than the mean
load and down for those that got more (Wang et al. 2024, arXiv:2408.15664), so no loss disturbs the gradients.
"""

from __future__ import annotations

from lamina.core import BiasedTopK, BiasedTopKConfig, Register, hookimpl


class SigmoidBias(BiasedTopK):
    """The bias decides who is chosen, never with what weight."""

    Config = BiasedTopKConfig
    paper = "DeepSeek-AI 2024, arXiv:2412.19437"
    score = "sigmoid"


@hookimpl
def register_components(register: Register) -> None:
    register("sigmoid_bias", SigmoidBias)
