"""Qwen3-Next: three layers of gated DeltaNet to one of gated attention, and many small experts.

Qwen Team 2025, Qwen3-Next-80B-A3B. Gated DeltaNet: Yang et al. 2024, arXiv:2412.06464; the gate on attention: Qiu et
al. 2025, arXiv:2505.06708.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.core import (
    DELTA_EXPERT_KEYS,
    DELTA_KEYS,
    GATED_EXPERTS,
    ConfigKeys,
    DeltaHybrid,
    Key,
    Move,
    Register,
    Woven,
    delta_activation,
    delta_template,
    hookimpl,
    move,
    sparse_layers,
    write_sparse_layers,
)

EXPERTS, DENSE = ("linear", "full"), ("linear_dense", "full_dense")


class Qwen3Next(DeltaHybrid):
    """Qwen3-Next-80B-A3B and Qwen3-Coder-Next. Layers that predict further tokens are left out."""

    paper = "Qwen Team 2025, Qwen3-Next; Yang et al. 2024, arXiv:2412.06464"
    model_types = ("qwen3_next",)
    architecture = "Qwen3NextForCausalLM"
    template = delta_template(GATED_EXPERTS, dense=True)
    keys = (
        *DELTA_KEYS,
        *DELTA_EXPERT_KEYS,
        delta_activation(*DENSE),
        Key("intermediate_size", *(f"blocks.{role}.ffn.hidden_dim" for role in DENSE), default=5632),
        Key("norm_topk_prob", *(f"blocks.{role}.ffn.router.renormalise" for role in EXPERTS), default=True),
    )

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        sparse = sparse_layers(config, n_layers)
        if config.get("num_experts", 512) == 0:
            sparse = [False] * n_layers
        pairs = zip(super().roles(config, n_layers), sparse, strict=True)
        return [role if chosen else f"{role}_dense" for role, chosen in pairs]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        super().write_roles([role.removesuffix("_dense") for role in roles], config)
        write_sparse_layers((not role.endswith("_dense") for role in roles), config)

    def projection_moves(self, at: str, to: str, config: Any) -> Iterable[Move]:
        """All that belongs to one head of keys lies together."""
        groups, each = config.n_qk_heads, config.n_heads // config.n_qk_heads
        values = each * config.v_head_dim
        layout = Woven(groups, (config.head_dim, config.head_dim, values, values))
        yield move(f"{to}.qkvz", f"{at}.in_proj_qkvz", layout)
        yield move(f"{to}.ba", f"{at}.in_proj_ba", Woven(groups, (each, each)))


@hookimpl
def register_components(register: Register) -> None:
    register("qwen3_next", Qwen3Next)
