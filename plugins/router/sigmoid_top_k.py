"""Top-k of sigmoids: s = sigmoid(W·x), the k largest s_i chosen, their weights s_i / Σ_chosen s · scale.

Llama 4 (Meta 2025) takes them as they are, with `renormalise: false`, and multiplies the experts' inputs by them
(`moe` with `weigh: inputs`). Options, groups and losses are those of `softmax_top_k`; the balance loss takes
P_e to be the mean of s_e / Σ s, as DeepSeek-V3 does (2024, arXiv:2412.19437, eq. 17 to 20).
"""

from __future__ import annotations

from lamina.core import Register, ScoredTopK, ScoredTopKConfig, hookimpl


class SigmoidTopK(ScoredTopK):
    """Each expert is judged by itself, so that one more takes nothing from the others' scores."""

    Config = ScoredTopKConfig
    paper = "Meta 2025, Llama 4"
    score = "sigmoid"


@hookimpl
def register_components(register: Register) -> None:
    register("sigmoid_top_k", SigmoidTopK)
