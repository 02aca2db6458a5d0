"""Gemma 2: Gemma with norms on both sides, windows in every other layer, caps.  Gemma team 2024, arXiv:2408.00118."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import (
    ACTIVATIONS,
    FULL_OR_SLIDING,
    LLAMA_KEYS,
    WINDOW,
    ConfigKeys,
    Fixed,
    Key,
    Register,
    TypedLayers,
    defaults,
    hookimpl,
    llama_template,
    with_default,
    without,
)


class Gemma2(TypedLayers):
    """Gemma 2."""

    paper = "Gemma team 2024, arXiv:2408.00118"
    model_types = ("gemma2",)
    architecture = "Gemma2ForCausalLM"
    template = llama_template(
        {"placement": "sandwich"},
        norm={"name": "rms", "offset": 1.0},
        embedding={"scale": "sqrt_dim"},
        blocks=FULL_OR_SLIDING,
    )
    keys = (
        *defaults(without(LLAMA_KEYS, "hidden_act"), num_key_value_heads=4, head_dim=256, tie_word_embeddings=True),
        Key("hidden_activation", "blocks.*.ffn.activation", default="gelu_pytorch_tanh", values=ACTIVATIONS),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key(
            "query_pre_attn_scalar", "blocks.*.attention.scale", default=256, to=lambda n: n**-0.5, back=lambda s: s**-2
        ),
        with_default(WINDOW, 4096),
        Key("attn_logit_softcapping", "blocks.*.attention.softcap", default=50.0),
        Key("final_logit_softcapping", "head.softcap", default=30.0),
        Fixed("use_bidirectional_attention", None),
    )
    ignored_keys = ("cache_implementation",)
    norms: ClassVar = {
        "attention_in": "input_layernorm",
        "attention_out": "post_attention_layernorm",
        "ffn_in": "pre_feedforward_layernorm",
        "ffn_out": "post_feedforward_layernorm",
    }

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        return [("sliding_attention", "full_attention")[layer % 2] for layer in range(n_layers)]


@hookimpl
def register_components(register: Register) -> None:
    register("gemma2", Gemma2)
