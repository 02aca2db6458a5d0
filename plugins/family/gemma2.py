"""Gemma 2: Gemma with norms on both sides, windows in every other layer, caps.  Gemma team 2024, arXiv:2408.00118."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    FROM_ONE,
    FULL_OR_SLIDING,
    GGUF,
    LLAMA_KEYS,
    LLAMA_META,
    WINDOW,
    ConfigKeys,
    Fixed,
    Key,
    Means,
    MetaKey,
    Register,
    TypedLayers,
    Windows,
    defaults,
    hookimpl,
    llama_template,
    with_default,
    without,
)


def scaled_by(config: Mapping[str, Any]) -> int:
    """What llama.cpp takes `query_pre_attn_scalar` to be, which its files do not have: another width in the largest."""
    largest = config["num_hidden_layers"] == 46
    return int(config["hidden_size"] // config["num_attention_heads"] if largest else config["head_dim"])


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
    gguf = GGUF(
        "gemma2",
        (
            *LLAMA_META,
            Windows(2, 4096),
            MetaKey("attn_logit_softcapping", "attn_logit_softcapping", float),
            MetaKey("final_logit_softcapping", "final_logit_softcapping", float),
            Means("query_pre_attn_scalar", scaled_by),
        ),
        FROM_ONE,
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
