"""GLM-4 of 2025: GLM with norms on what sublayers give besides those on what they read.  Z.ai 2025."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import (
    LLAMA_KEYS,
    Key,
    LlamaLike,
    Register,
    Rope,
    defaults,
    hookimpl,
    llama_template,
    without,
)


class Glm4(LlamaLike):
    """GLM-4-0414 and GLM-Z1."""

    paper = "GLM team 2024, arXiv:2406.12793; Z.ai 2025, GLM-4-0414"
    model_types = ("glm4",)
    architecture = "Glm4ForCausalLM"
    template = llama_template({"placement": "sandwich", "attention": {"out_bias": False}})
    keys = (
        *defaults(without(LLAMA_KEYS, "rope_parameters"), num_key_value_heads=2, head_dim=128, rms_norm_eps=1.5625e-07),
        Key("attention_bias", "blocks.*.attention.bias", default=True),
        Rope(fraction=0.5, layout="interleaved", partial=True),
    )
    norms: ClassVar = {
        "attention_in": "input_layernorm",
        "attention_out": "post_self_attn_layernorm",
        "ffn_in": "post_attention_layernorm",
        "ffn_out": "post_mlp_layernorm",
    }
    ffn_names: ClassVar = {"gate_up": "mlp.gate_up_proj", "down": "mlp.down_proj"}


@hookimpl
def register_components(register: Register) -> None:
    register("glm4", Glm4)
