"""Helium: Llama with neighbouring channels turned together.  Kyutai 2025."""

from __future__ import annotations

from typing import Any

from lamina.core import (
    LLAMA_KEYS,
    ConfigKeys,
    Key,
    LlamaLike,
    Register,
    Rope,
    defaults,
    hookimpl,
    llama_template,
    without,
)


class Helium(LlamaLike):
    """Helium 1. Its heads side by side are always as wide as the stream."""

    paper = "Kyutai 2025, Helium 1"
    model_types = ("helium",)
    architecture = "HeliumForCausalLM"
    template = llama_template({"attention": {"out_bias": False}})
    keys = (
        *defaults(without(LLAMA_KEYS, "rope_parameters"), num_key_value_heads=20, head_dim=128, rms_norm_eps=1e-8),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("mlp_bias", "blocks.*.ffn.bias", default=False),
        Rope(theta=100_000.0, layout="interleaved"),
    )

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        attention = data["blocks"]["block"]["attention"]
        heads, width, dim = attention.get("n_heads"), attention.get("head_dim"), data.get("dim")
        if all(type(size) is int for size in (heads, width, dim)) and heads * width != dim:
            config.wrong("head_dim", f"{heads} heads of {width} are not hidden_size {dim}, which this model requires")
        return data


@hookimpl
def register_components(register: Register) -> None:
    register("helium", Helium)
