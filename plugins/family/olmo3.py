"""OLMo 3: OLMo 2 with windows in three layers of four, and scaled rotation in the fourth.  OLMo team 2025."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import (
    FULL_OR_SLIDING,
    GGUF,
    LLAMA_KEYS,
    RMS_META,
    SIZES_META,
    WINDOW,
    ConfigKeys,
    EvenHeads,
    Key,
    Means,
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


class Olmo3(TypedLayers):
    """OLMo 3."""

    paper = "OLMo team 2025, arXiv:2512.13961"
    model_types = ("olmo3",)
    architecture = "Olmo3ForCausalLM"
    template = llama_template(
        {"placement": "output", "attention": {"qk_norm": {"name": "rms"}, "qk_norm_over": "all"}},
        blocks=FULL_OR_SLIDING,
    )
    keys = (
        *defaults(without(LLAMA_KEYS, "rope_parameters"), rms_norm_eps=1e-5),
        with_default(WINDOW, 4096),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Rope(role="sliding", layer_type="sliding_attention", theta=5e5, flat=False),
        Rope(role="full", layer_type="full_attention", theta=5e5),
    )
    gguf = GGUF(
        "olmo2",
        (
            *SIZES_META,
            EvenHeads(),
            RMS_META,
            RopeMeta(layer_type="full_attention"),
            RopeMeta(layer_type="sliding_attention", scaled=False),
            Windows(4),
            Means("tie_word_embeddings", False),
        ),
        serves=lambda meta: bool(meta.get("attention.sliding_window")),
    )
    norms: ClassVar = {"attention_out": "post_attention_layernorm", "ffn_out": "post_feedforward_layernorm"}

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        return ["sliding_attention" if (layer + 1) % 4 else "full_attention" for layer in range(n_layers)]


@hookimpl
def register_components(register: Register) -> None:
    register("olmo3", Olmo3)
