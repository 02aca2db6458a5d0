"""Qwen3.5 with experts, text: Qwen3-Next without dense layers.  Qwen Team 2026."""

from __future__ import annotations

from lamina.core import (
    DELTA_EXPERT_KEYS,
    DELTA_KEYS,
    GATED_EXPERTS,
    DeltaHybrid,
    Register,
    defaults,
    delta_activation,
    delta_template,
    hookimpl,
    overlay,
)


class Qwen35MoE(DeltaHybrid):
    """The language models of Qwen3.5-35B-A3B and its siblings. Layers that predict further tokens are left out."""

    paper = "Qwen Team 2026, Qwen3.5; Yang et al. 2024, arXiv:2412.06464"
    model_types = ("qwen3_5_moe_text",)
    architecture = "Qwen3_5MoeForCausalLM"
    template = delta_template(overlay(GATED_EXPERTS, {"router": {"renormalise": True}}))
    keys = (
        *DELTA_KEYS,
        *defaults(DELTA_EXPERT_KEYS, num_experts=256, num_experts_per_tok=8),
        delta_activation(),
    )


@hookimpl
def register_components(register: Register) -> None:
    register("qwen3_5_moe", Qwen35MoE)
