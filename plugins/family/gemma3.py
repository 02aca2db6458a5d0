"""Gemma 3, text: Gemma 2 with norms on heads in place of caps, two bases.  Gemma team 2025, arXiv:2503.19786."""

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
    Rope,
    TypedLayers,
    defaults,
    hookimpl,
    llama_template,
    with_default,
    without,
)


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
