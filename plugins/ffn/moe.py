"""Mixture of experts: y = Σ_i w_i · expert_i(x) over the k experts a router picks, plus shared(x).

Shazeer et al. 2017, arXiv:1701.06538; shared experts: Dai et al. 2024, arXiv:2401.06066.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import FFN, ComponentConfig, Context, Part, Parts, Register, Router, hookimpl, slot


class MoEConfig(ComponentConfig):
    n_experts: int = Field(gt=0, le=65_536, description="How many experts the router chooses among.")
    router: Part = slot("router", "softmax_top_k", description="Chooses the experts of each token and their weights.")
    expert: Part = slot("ffn", "gated", description="The feed-forward network each expert is one of.")
    shared: Part | None = slot(
        "ffn",
        None,
        description="A feed-forward network every token passes through besides; "
        "n shared experts are one of n times the width.",
    )


class MoE(FFN):
    """Costs what the chosen experts cost: tokens are grouped by expert, each expert runs once on its group."""

    Config = MoEConfig
    paper = "Shazeer et al. 2017, arXiv:1701.06538"

    @classmethod
    def parts(cls, config: MoEConfig) -> Parts:
        return {
            "experts": [config.expert.at() for _ in range(config.n_experts)],
            "router": config.router.at(n_experts=config.n_experts),
            "shared": config.shared.at() if config.shared is not None else None,
        }

    def __init__(self, config: MoEConfig, experts: list[FFN], router: Router, shared: FFN | None) -> None:
        super().__init__()
        self.router = router
        self.experts = nn.ModuleList(experts)
        self.shared = shared

    def forward(self, x: Tensor, context: Context) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])  # (N, D)
        routing = self.router(tokens, context)
        if self.training:
            for name, loss in routing.losses.items():
                context.add_loss(name, loss)
        if tokens.is_meta:
            outputs = self._as_if_run(tokens, routing.indices, context)
        elif tokens.shape[0] == 1 and not self.training:
            outputs = self._run_for_one(tokens, routing.indices, context)
        else:
            outputs = self._run_grouped(tokens, routing.indices, routing.load(), context)
        # A sum over k and not an index_add_ into N rows: the same bits on every device, and no row depends on another.
        out = (outputs * routing.weights.unsqueeze(-1)).sum(1).type_as(x).view_as(x)  # (N, k, D) -> (..., D)
        return out if self.shared is None else out + self.shared(x, context)

    def _run_grouped(self, tokens: Tensor, indices: Tensor, load: Tensor, context: Context) -> Tensor:
        """(N, D), (N, k), (E,) -> (N, k, D): each choice's expert on its token."""
        order = indices.flatten().argsort(stable=True)  # choices, those of one expert side by side
        place = torch.empty_like(order)
        place[order] = torch.arange(order.shape[0], device=order.device)  # where each choice went
        counts = load.tolist()  # the one wait for the device
        groups = torch.split(tokens[order // indices.shape[1]], counts)
        # In training an idle expert runs on no rows: its gradient is then zero and not missing, as data-parallel
        # processes, whose idle experts differ, need it to be.
        outputs = [
            expert(group, context)
            for expert, group, count in zip(self.experts, groups, counts, strict=True)
            if count or self.training
        ]
        return torch.cat(outputs)[place].view(*indices.shape, -1)

    def _run_for_one(self, token: Tensor, indices: Tensor, context: Context) -> Tensor:
        """The same for a single token, as in decoding: nothing to sort."""
        return torch.stack([self.experts[i](token, context) for i in indices[0].tolist()], 1)

    def _as_if_run(self, tokens: Tensor, indices: Tensor, context: Context) -> Tensor:
        """The same on the meta device, where nobody knows the choices. Experts are alike, so the first on all N·k rows
        has the shapes and the cost of all."""
        rows = tokens.repeat_interleave(indices.shape[1], 0)
        out: Tensor = self.experts[0](rows, context)
        return out.view(*indices.shape, -1)

    def active_parameters(self) -> int:
        expert, shared = self.experts[0], self.shared
        assert isinstance(expert, FFN)
        routing = sum(parameter.numel() for parameter in self.router.parameters())
        always = 0 if shared is None else shared.active_parameters()
        return routing + always + self.router.experts_per_token * expert.active_parameters()


@hookimpl
def register_components(register: Register) -> None:
    register("moe", MoE)
