"""Top-k of a softmax: p = softmax(W·x), the k largest p_i chosen, their weights p_i / Σ_chosen p · scale.

Shazeer et al. 2017, arXiv:1701.06538. With groups, only experts of the best groups may be chosen (DeepSeek-V2,
arXiv:2405.04434). Two optional losses keep it healthy in training:
  balance  E · Σ_e f_e · P_e, f_e the fraction of all N·k choices that fell on expert e, P_e its mean probability.
           Switch Transformer (Fedus et al. 2021, arXiv:2101.03961) for any k; 1 when the load is even, more when not.
  z        mean of logsumexp(logits)², which keeps logits small. ST-MoE (Zoph et al. 2022, arXiv:2202.08906).
"""

from __future__ import annotations

from lamina.core import CannotLower, Program, Register, Rows, ScoredTopK, ScoredTopKConfig, hookimpl


class SoftmaxTopK(ScoredTopK):
    """Experts compete for each token; the winners share it by probability."""

    Config = ScoredTopKConfig
    paper = "Shazeer et al. 2017, arXiv:1701.06538"
    score = "softmax"

    def lower(self, program: Program, x: Rows) -> None:
        config = self.config
        if config.n_groups > 1:
            raise CannotLower("groups of experts")
        if config.norm_order != 1.0:
            raise CannotLower("weights of another norm than their sum")
        logits, k = program.linear(x, self.linear), config.experts_per_token
        program.route(logits, "softmax_top_k", k, renormalise=config.renormalise, scale=config.scale)


@hookimpl
def register_components(register: Register) -> None:
    register("softmax_top_k", SoftmaxTopK)
