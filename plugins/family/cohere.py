"""Command R: one norm before two parallel sublayers, pairs of neighbours turned.  Cohere 2024."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import (
    LLAMA_KEYS,
    Fixed,
    Key,
    LlamaLike,
    Register,
    Rope,
    defaults,
    hookimpl,
    llama_template,
    without,
)


class Cohere(LlamaLike):
    """Command R and R+ of the first generation, but for norms on queries and keys, which have a weight a head."""

    paper = "Cohere 2024, C4AI Command R"
    model_types = ("cohere",)
    architecture = "CohereForCausalLM"
    template = llama_template({"placement": "parallel"}, norm={"name": "layer", "bias": False})
    keys = (
        *defaults(without(LLAMA_KEYS, "rms_norm_eps", "rope_parameters", "head_dim"), tie_word_embeddings=True),
        Key("layer_norm_eps", "norm.eps", default=1e-5),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("logit_scale", "head.scale", default=0.0625),
        Fixed("use_qk_norm", False),
        Rope(layout="interleaved", theta=5e5),
    )
    norms: ClassVar = {"attention_in": "input_layernorm"}


@hookimpl
def register_components(register: Register) -> None:
    register("cohere", Cohere)
