"""Qwen3.5, text: Qwen3-Next's mixers with dense networks.  Qwen Team 2026."""

from __future__ import annotations

from lamina.core import DELTA_KEYS, DeltaHybrid, Key, Register, defaults, delta_activation, delta_template, hookimpl


class Qwen35(DeltaHybrid):
    """The language models of Qwen3.5's dense sizes. Layers that predict further tokens are left out."""

    paper = "Qwen Team 2026, Qwen3.5; Yang et al. 2024, arXiv:2412.06464"
    model_types = ("qwen3_5_text",)
    architecture = "Qwen3_5ForCausalLM"
    rank = 90
    template = delta_template({"name": "gated"})
    keys = (
        *defaults(DELTA_KEYS, num_key_value_heads=4),
        delta_activation("linear", "full"),
        Key("intermediate_size", "blocks.*.ffn.hidden_dim", default=12288),
    )


@hookimpl
def register_components(register: Register) -> None:
    register("qwen3_5", Qwen35)
