"""Granite: Llama with factors on embeddings, residuals, scores and logits.  IBM 2024, arXiv:2408.13359."""

from __future__ import annotations

from lamina.core import (
    GGUF,
    GRANITE_KEYS,
    HEAD_META,
    LLAMA_KEYS,
    PAIRED,
    RMS_META,
    SIZES_META,
    Key,
    LlamaLike,
    MetaKey,
    Present,
    Register,
    RopeMeta,
    hookimpl,
    llama_template,
)


class Granite(LlamaLike):
    """Granite 3's dense models."""

    paper = "Shen et al. 2024, arXiv:2408.13359"
    model_types = ("granite",)
    architecture = "GraniteForCausalLM"
    template = llama_template({"residual": {"name": "scaled"}})
    keys = (
        *LLAMA_KEYS,
        *GRANITE_KEYS,
        Key("mlp_bias", "blocks.*.ffn.bias", default=False),
    )
    gguf = GGUF(
        "granite",
        (
            *SIZES_META,
            HEAD_META,
            RMS_META,
            RopeMeta(),
            MetaKey("embedding_scale", "embedding_multiplier", float),
            MetaKey("residual_scale", "residual_multiplier", float),
            MetaKey("attention.scale", "attention_multiplier", float),
            MetaKey("logit_scale", "logits_scaling", float),
            Present("attention_bias", "blk.0.attn_q.bias"),
            Present("mlp_bias", "blk.0.ffn_up.bias"),
        ),
        PAIRED,
    )


@hookimpl
def register_components(register: Register) -> None:
    register("granite", Granite)
