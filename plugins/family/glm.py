"""GLM-4 of 2024: Llama with half of each head turned pair by pair, biases on q, k and v.  arXiv:2406.12793."""

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


class Glm(LlamaLike):
    """GLM-4 9B, as saved with the model type `glm`, and GLM-Edge."""

    paper = "GLM team 2024, arXiv:2406.12793"
    model_types = ("glm",)
    architecture = "GlmForCausalLM"
    template = llama_template({"attention": {"out_bias": False}})
    keys = (
        *defaults(without(LLAMA_KEYS, "rope_parameters"), num_key_value_heads=2, head_dim=128, rms_norm_eps=1.5625e-07),
        Key("attention_bias", "blocks.*.attention.bias", default=True),
        Rope(fraction=0.5, layout="interleaved", partial=True),
    )
    ffn_names: ClassVar = {"gate_up": "mlp.gate_up_proj", "down": "mlp.down_proj"}


@hookimpl
def register_components(register: Register) -> None:
    register("glm", Glm)
