"""Gemma 3, text: Gemma 2 with norms on heads in place of caps, two bases.  Gemma team 2025, arXiv:2503.19786."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    FROM_ONE,
    FULL_OR_SLIDING,
    GGUF,
    HEAD_META,
    LLAMA_KEYS,
    RMS_META,
    SIZES_META,
    WINDOW,
    ConfigKeys,
    Fixed,
    Key,
    Means,
    MetaKey,
    Register,
    Rope,
    RopeMeta,
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
    largest = config["num_hidden_layers"] == 62
    return int(config["hidden_size"] // config["num_attention_heads"] if largest else config["head_dim"])


class Gemma3(TypedLayers):
    """Gemma 3's text models."""

    paper = "Gemma team 2025, arXiv:2503.19786"
    model_types = ("gemma3_text",)
    architecture = "Gemma3ForCausalLM"
    template = llama_template(
        {"placement": "sandwich", "attention": {"qk_norm": {"name": "rms", "offset": 1.0}}},
        norm={"name": "rms", "offset": 1.0},
        embedding={"scale": "sqrt_dim"},
        blocks=FULL_OR_SLIDING,
    )
    keys = (
        *defaults(
            without(LLAMA_KEYS, "hidden_act", "rope_parameters"),
            num_key_value_heads=4,
            head_dim=256,
            tie_word_embeddings=True,
        ),
        Key("hidden_activation", "blocks.*.ffn.activation", default="gelu_pytorch_tanh", values=ACTIVATIONS),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key(
            "query_pre_attn_scalar", "blocks.*.attention.scale", default=256, to=lambda n: n**-0.5, back=lambda s: s**-2
        ),
        with_default(WINDOW, 4096),
        Fixed("attn_logit_softcapping", None),  # which transformers reads, and then heeds nowhere
        Key("final_logit_softcapping", "head.softcap"),
        Rope(role="sliding", layer_type="sliding_attention", flat=False, theta_keys=("rope_local_base_freq",)),
        Rope(role="full", layer_type="full_attention", theta=1e6),
        Fixed("use_bidirectional_attention", None),
    )
    gguf = GGUF(
        "gemma3",
        (
            *SIZES_META,
            HEAD_META,
            RMS_META,
            RopeMeta(1e6, layer_type="full_attention"),
            RopeMeta(1e4, layer_type="sliding_attention", base="rope.freq_base_swa", scaled=False),
            Windows(6),
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
        period = config.number("sliding_window_pattern", 6, "_sliding_window_pattern") or 6
        return ["sliding_attention" if (layer + 1) % period else "full_attention" for layer in range(n_layers)]


@hookimpl
def register_components(register: Register) -> None:
    register("gemma3", Gemma3)
