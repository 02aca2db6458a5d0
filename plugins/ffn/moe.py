"""Mixture of experts: y = Σ_i w_i · expert_i(x) over the k experts a router picks, plus shared(x).

Shazeer et al. 2017, arXiv:1701.06538. Besides: shared experts (Dai et al. 2024, arXiv:2401.06066), scaled by
sigmoid(g·x) in Qwen2-MoE (arXiv:2407.10671); experts that cost nothing, y = x or y = 0 (MoE++, Jin et al. 2024,
arXiv:2410.07348; LongCat-Flash, arXiv:2509.01322); a capacity C = ⌈factor · T · k / E⌉ of a row an expert takes in
training, beyond which choices are dropped (GShard, arXiv:2006.16668; Switch, arXiv:2101.03961); weights that multiply
an expert's input instead of its output (Llama 4); a learned factor an expert (Gemma 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import (
    FFN,
    CannotLower,
    ComponentConfig,
    ConfigProblem,
    Context,
    Part,
    Parts,
    Program,
    Register,
    Router,
    RouterLinear,
    Routing,
    Rows,
    hookimpl,
    lowering,
    slot,
)


class MoEConfig(ComponentConfig):
    n_experts: int = Field(gt=0, le=65_536, description="How many experts with weights the router chooses among.")
    router: Part = slot("router", "softmax_top_k", description="Chooses the experts of each token and their weights.")
    expert: Part = slot("ffn", "gated", description="The feed-forward network each expert is one of.")
    shared: Part | None = slot(
        "ffn",
        None,
        description="A feed-forward network every token passes through besides; "
        "n shared experts are one of n times the width.",
    )
    shared_gate: bool = Field(False, description="Whether shared's output is multiplied by a learned sigmoid(g·x).")
    identity_experts: int = Field(
        0, ge=0, le=65_536, description="Experts without weights that return their input, after those with weights."
    )
    zero_experts: int = Field(
        0, ge=0, le=65_536, description="Experts without weights that return nothing, after all others."
    )
    capacity_factor: float | None = Field(
        None,
        gt=0,
        description="In training an expert takes this many times its even share of a row's tokens, the first ones; the "
        "others' choice of it is dropped. Null: all it is given. In evaluation and generation nothing is dropped.",
    )
    weigh: Literal["outputs", "inputs"] = Field("outputs", description="What the router's weights multiply.")
    expert_scale: bool = Field(False, description="Whether each expert's weight has a learned factor, 1 at first.")

    def derive(self) -> dict[str, Any]:
        if self.shared_gate and self.shared is None:
            raise ConfigProblem("shared_gate", "there is no shared network to gate", "add shared, or remove the gate")
        return {}

    @property
    def n_choices(self) -> int:
        return self.n_experts + self.identity_experts + self.zero_experts


class MoE(FFN):
    """Costs what the chosen experts cost: tokens are grouped by expert, each expert runs once on its group."""

    Config = MoEConfig
    paper = "Shazeer et al. 2017, arXiv:1701.06538"

    @classmethod
    def requires(cls, config: MoEConfig) -> dict[str, frozenset[str]]:
        return {"ffn": frozenset({"tokenwise"})}  # an expert is given the tokens that chose it, side by side

    @classmethod
    def parts(cls, config: MoEConfig) -> Parts:
        return {
            "experts": [config.expert.at() for _ in range(config.n_experts)],
            "router": config.router.at(n_experts=config.n_choices),
            "shared": config.shared.at() if config.shared is not None else None,
        }

    def __init__(self, config: MoEConfig, dim: int, experts: list[FFN], router: Router, shared: FFN | None) -> None:
        super().__init__()
        self.config = config
        self.router = router
        self.experts = nn.ModuleList(experts)
        self.shared = shared
        self.shared_gate = RouterLinear(dim, 1) if config.shared_gate else None
        self.expert_scale = nn.Parameter(torch.ones(config.n_choices)) if config.expert_scale else None  # (E,)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])  # (N, D)
        routing = self.router(tokens, context)
        weights, served = routing.weights, routing.kept  # (N, k) each
        if self.expert_scale is not None:
            weights = weights * self.expert_scale[routing.indices]
        if self.training and tokens.shape[0]:
            for name, loss in routing.losses.items():
                context.add_loss(name, loss)
            served = self._within_capacity(routing, x.shape[-2])
            if not context.again:
                self._count_routing(routing, served)
        if tokens.is_meta:
            out = self._as_if_run(tokens, weights, context)
        elif tokens.shape[0] == 1 and not self.training and served is None:
            out = self._run_for_one(tokens, routing.indices, weights, context)
        else:
            out = self._run_grouped(tokens, routing.indices, weights, served, context)
        out = out.type_as(x).view_as(x)
        if self.shared is None:
            return out
        always = self.shared(x, context)
        return out + (always if self.shared_gate is None else always * self.shared_gate(x).sigmoid().type_as(always))

    def _within_capacity(self, routing: Routing, length: int) -> Tensor | None:
        """(N, k) bool, the choices that are served; None when all are.

        Each row of `length` tokens has a share of its own, and in it earlier tokens go first, with all of their
        choices: so a token's experts depend on no other row and on no later token.
        """
        factor, config = self.config.capacity_factor, self.config
        if factor is None:
            return routing.kept
        chosen = _choices(routing.indices, routing.kept, config.n_choices)  # (N·k,)
        row = torch.arange(chosen.shape[0], device=chosen.device) // (length * routing.indices.shape[1])
        queue = row * (config.n_choices + 1) + chosen  # one an expert and row
        sizes = _count(queue, len(routing.indices) // length * (config.n_choices + 1))
        order = queue.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(order.shape[0], device=order.device)
        rank = place - (sizes.cumsum(0) - sizes)[queue]
        capacity = math.ceil(factor * length * self.router.experts_per_token / config.n_choices)
        free = (chosen >= config.n_experts) & (chosen < config.n_choices)  # these experts cost nothing
        return ((rank < capacity) & (chosen < config.n_experts) | free).view_as(routing.indices)

    def _run_grouped(
        self, tokens: Tensor, indices: Tensor, weights: Tensor, served: Tensor | None, context: Context
    ) -> Tensor:
        """(N, D), (N, k), (N, k), (N, k) or None -> (N, D): the weighted sum of each token's experts."""
        chosen = _choices(indices, served, self.config.n_choices)
        order = chosen.argsort(stable=True)  # choices, those of one expert side by side
        counts = _count(chosen, self.config.n_choices + 1).tolist()  # the one wait for the device
        # In training an idle expert runs on no rows: its gradient is then zero and not missing, as data-parallel
        # processes, whose idle experts differ, need it to be.
        present = [expert for expert, count in enumerate(counts) if count or self.training]
        sizes = [counts[expert] for expert in present]
        places = order // indices.shape[1]  # whose choice each is
        groups = zip(
            present,
            torch.split(tokens.index_select(0, places), sizes),
            torch.split(weights.flatten().index_select(0, order).unsqueeze(1), sizes),
            torch.split(places, sizes),
            strict=True,
        )
        n_working = self.config.n_choices - self.config.zero_experts
        out = torch.zeros_like(tokens, dtype=torch.promote_types(tokens.dtype, weights.dtype))
        for expert, group, factors, rows in groups:
            if expert < n_working:
                # No token is twice in a group, so the sum has the same bits on every device, and experts are added to
                # a token in their own order, whatever other tokens there are.
                out.index_add_(0, rows, self._weighted(expert, group, factors, context).to(out.dtype))
        return out

    def _run_for_one(self, token: Tensor, indices: Tensor, weights: Tensor, context: Context) -> Tensor:
        """The same for a single token, as in decoding: nothing to sort, and weighed in one go."""
        chosen = indices[0].tolist()
        if self.config.weigh == "inputs":
            rows = torch.split((token * weights.view(-1, 1)).type_as(token), 1)
            outputs = [self._run(expert, row, context) for expert, row in zip(chosen, rows, strict=True)]
            return torch.cat(outputs).sum(0, keepdim=True)
        outputs = [self._run(expert, token, context) for expert in chosen]
        return (torch.cat(outputs) * weights.view(-1, 1)).sum(0, keepdim=True)  # (k, D) -> (1, D)

    def _weighted(self, expert: int, rows: Tensor, factors: Tensor, context: Context) -> Tensor:
        """(M, D), (M, 1) -> (M, D)"""
        if self.config.weigh == "inputs":
            return self._run(expert, (rows * factors).type_as(rows), context)
        return self._run(expert, rows, context) * factors

    def _run(self, expert: int, rows: Tensor, context: Context) -> Tensor:
        """(M, D) -> (M, D)"""
        if expert < self.config.n_experts:
            found: Tensor = self.experts[expert](rows, context)
            return found
        return rows if expert < self.config.n_experts + self.config.identity_experts else torch.zeros_like(rows)

    def _as_if_run(self, tokens: Tensor, weights: Tensor, context: Context) -> Tensor:
        """The same on the meta device, where nobody knows the choices. Experts are alike, so the first on all N·k rows
        has the shapes and the cost of all, were no choice to fall on one without weights or to be dropped."""
        rows = tokens.repeat_interleave(weights.shape[1], 0)
        return self._weighted(0, rows, weights.flatten().unsqueeze(1), context).view(*weights.shape, -1).sum(1)

    @torch.no_grad()
    def _count_routing(self, routing: Routing, served: Tensor | None) -> None:
        n_tokens = torch.full((), routing.indices.shape[0], device=routing.indices.device)
        self.count(load=routing.load(), entropy=routing.entropy().sum(), tokens=n_tokens)
        if served is not None:
            wanted = torch.ones_like(served) if routing.kept is None else routing.kept
            dropped, weights = wanted & ~served, routing.weights
            self.count(
                dropped=dropped.sum(),
                dropped_weight=(weights * dropped).sum(),
                weight=(weights * wanted).sum(),
                unserved=(~served.any(1)).sum(),
            )

    def figures(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        """Of the choices counted: the share of each expert, by how much the largest exceeds an even share, the router's
        entropy as a share of the highest possible; where choices may be dropped, the share dropped, and what is lost by
        it: the share of all weight, and of the tokens those left without any expert."""
        load = sums["load"].double()
        share = load / load.sum()
        told: dict[str, Any] = {
            "load": [round(value, 5) for value in share.tolist()],
            "max_violation": share.amax().item() * len(load) - 1,
            "entropy": sums["entropy"].item() / sums["tokens"].item() / max(1e-9, math.log(len(load))),
        }
        if "dropped" in sums:
            weight, unserved = sums["dropped_weight"] / sums["weight"].clamp(min=1e-20), sums["unserved"]
            told["dropped"] = sums["dropped"].item() / load.sum().item()
            told["lost"] = {"weight": weight.item(), "tokens": unserved.item() / sums["tokens"].item()}
        return told

    def lower(self, program: Program, x: Rows) -> Rows:
        config = self.config
        if config.n_choices > config.n_experts or config.weigh == "inputs" or self.expert_scale is not None:
            raise CannotLower("experts without weights, weighed inputs or a factor an expert")
        always = None if self.shared is None else lowering(self.shared)(program, x)
        lowering(self.router)(program, x)
        expert: Any = self.experts[0]
        with program.among(list(self.experts)):
            chosen = lowering(expert)(program, x)
        out = program.combine(chosen)
        if always is not None:
            if self.shared_gate is not None:
                raise CannotLower("a gated shared expert")
            program.add(out, always)
        return out

    def active_parameters(self) -> int:
        """Those of one token all of whose choices fall on experts with weights."""
        expert, shared = self.experts[0], self.shared
        assert isinstance(expert, FFN)
        always = [self.router, *(module for module in (self.shared_gate,) if module is not None)]
        routing = sum(parameter.numel() for module in always for parameter in module.parameters())
        routing += 0 if shared is None else shared.active_parameters()
        own = expert.active_parameters() + (0 if self.expert_scale is None else 1)
        return routing + self.router.experts_per_token * own


def _choices(indices: Tensor, served: Tensor | None, nobody: int) -> Tensor:
    """(N·k,): the expert of each choice, `nobody` for those that are not served."""
    return indices.flatten() if served is None else torch.where(served, indices, nobody).flatten()


def _count(chosen: Tensor, n: int) -> Tensor:
    """(M,) -> (n,) int64. Not bincount, which makes an accelerator wait and does not run on the meta device."""
    return torch.zeros(n, dtype=torch.int64, device=chosen.device).scatter_add_(0, chosen, torch.ones_like(chosen))


@hookimpl
def register_components(register: Register) -> None:
    register("moe", MoE)
