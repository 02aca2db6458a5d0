"""Sigmoid scores with a bias that evens the load: s = sigmoid(W·x), the k largest s_i + b_i chosen,
weights s_i / Σ_chosen s · scale.

DeepSeek-V3 (2024, arXiv:2412.19437). After each step b moves by a fixed rate up for experts that got less than the mean
load and down for those that got more (Wang et al. 2024, arXiv:2408.15664), so no loss disturbs the gradients.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, distributed

from lamina.core import Context, Register, Router, RouterLinear, Routing, TopKConfig, hookimpl


class SigmoidBiasConfig(TopKConfig):
    scale: float = Field(1.0, gt=0, description="Factor on the weights; DeepSeek-V3 uses 2.5.")
    bias_update_rate: float = Field(0.001, ge=0, description="How far the bias moves in a step; 0 freezes it.")


class SigmoidBias(Router):
    """The bias decides who is chosen, never with what weight."""

    Config = SigmoidBiasConfig
    paper = "DeepSeek-AI 2024, arXiv:2412.19437"
    bias: Tensor  # (E,)

    def __init__(self, config: SigmoidBiasConfig, dim: int, n_experts: int) -> None:
        super().__init__()
        self.config = config
        self.linear = RouterLinear(dim, n_experts)
        # float32 also in a bfloat16 model, where a step of 0.001 would round away.
        self.register_buffer("bias", torch.zeros(n_experts, dtype=torch.float32))
        self._load: Tensor | None = None  # (E,) int64, choices since the last step

    def init_weights(self, std: float) -> None:
        self.bias.zero_()

    @property
    def experts_per_token(self) -> int:
        return self.config.experts_per_token

    def forward(self, x: Tensor, context: Context) -> Routing:
        logits = self.linear(x)
        affinities = logits.sigmoid()
        scores = affinities + self.bias  # (N, E)
        indices = scores.topk(self.experts_per_token, -1).indices  # (N, k)
        weights = affinities.gather(-1, indices)
        if self.config.renormalise:
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-20)  # sigmoids can all underflow
        routing = Routing(logits, scores, weights * self.config.scale, indices)
        if self.training:
            load = routing.load()
            self._load = load if self._load is None else self._load + load
        return routing

    def after_step(self) -> None:
        if self._load is None:
            return
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self._load)  # every process must move its bias alike
        load = self._load.float()
        self.bias += self.config.bias_update_rate * torch.sign(load.mean() - load)
        self._load = None


@hookimpl
def register_components(register: Register) -> None:
    register("sigmoid_bias", SigmoidBias)
