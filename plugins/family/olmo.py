"""OLMo: Llama with norms that learn nothing, clipped queries and keys.  Groeneveld et al. 2024, arXiv:2402.00838."""

from __future__ import annotations

from lamina.core import (
    GGUF,
    LLAMA_KEYS,
    PAIRED,
    SIZES_META,
    Always,
    EvenHeads,
    Key,
    LlamaLike,
    MetaKey,
    Register,
    RopeMeta,
    hookimpl,
    llama_template,
    without,
)


class Olmo(LlamaLike):
    """The first OLMo."""

    paper = "Groeneveld et al. 2024, arXiv:2402.00838"
    model_types = ("olmo",)
    architecture = "OlmoForCausalLM"
    template = llama_template(norm={"name": "layer", "affine": False, "eps": 1e-5})
    keys = (
        *without(LLAMA_KEYS, "rms_norm_eps"),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("clip_qkv", "blocks.*.attention.clip"),
    )
    gguf = GGUF(
        "olmo",
        (
            *SIZES_META,
            EvenHeads(),
            Always("attention.layer_norm_epsilon", 1e-5, float),
            MetaKey("attention.clamp_kqv", "clip_qkv", float),
            RopeMeta(),
        ),
        PAIRED,
    )


@hookimpl
def register_components(register: Register) -> None:
    register("olmo", Olmo)
