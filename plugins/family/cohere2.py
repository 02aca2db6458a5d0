"""Command R7B and A: Command R with windows, and layers without position between.  Cohere 2025, arXiv:2504.00698."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import (
    GGUF,
    LAYER_NORM_META,
    LLAMA_KEYS,
    SIZES_META,
    WINDOW,
    ConfigKeys,
    EvenHeads,
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


class Cohere2(TypedLayers):
    """Command R7B, Command A."""

    paper = "Cohere 2025, arXiv:2504.00698"
    model_types = ("cohere2",)
    architecture = "Cohere2ForCausalLM"
    template = llama_template(
        {"placement": "parallel"},
        norm={"name": "layer", "bias": False},
        blocks={
            "sliding": {"attention": {"mask": {"name": "sliding"}}},
            "full": {"attention": {"mask": "causal"}, "position": {"name": "none"}},
        },
    )
    keys = (
        *defaults(without(LLAMA_KEYS, "rms_norm_eps", "rope_parameters"), tie_word_embeddings=True),
        Key("layer_norm_eps", "norm.eps", default=1e-5),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("logit_scale", "head.scale", default=0.0625),
        with_default(WINDOW, 4096),
        Rope(role="sliding", layout="interleaved"),
    )
    gguf = GGUF(
        "cohere2",
        (
            *SIZES_META,
            EvenHeads(),
            LAYER_NORM_META,
            RopeMeta(),
            MetaKey("logit_scale", "logit_scale", float),
            Windows(4),
            Means("tie_word_embeddings", True),
        ),
    )
    ignored_keys = ("cache_implementation",)
    norms: ClassVar = {"attention_in": "input_layernorm"}

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        period = config.number("sliding_window_pattern", 4, "_sliding_window_pattern") or 4
        return ["sliding_attention" if (layer + 1) % period else "full_attention" for layer in range(n_layers)]


@hookimpl
def register_components(register: Register) -> None:
    register("cohere2", Cohere2)
