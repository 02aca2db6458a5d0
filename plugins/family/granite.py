"""Granite: Llama with factors on embeddings, residuals, scores and logits.  IBM 2024, arXiv:2408.13359."""

from __future__ import annotations

from lamina.core import LLAMA_KEYS, Key, LlamaLike, Register, hookimpl, llama_template, without


class Granite(LlamaLike):
    """Granite 3's dense models."""

    paper = "Shen et al. 2024, arXiv:2408.13359"
    model_types = ("granite",)
    architecture = "GraniteForCausalLM"
    template = llama_template({"residual": {"name": "scaled"}})
    keys = (
        *without(LLAMA_KEYS, "head_dim"),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("mlp_bias", "blocks.*.ffn.bias", default=False),
        Key("embedding_multiplier", "embedding.scale", default=1.0),
        Key("residual_multiplier", "blocks.*.residual.factor", default=1.0),
        Key("attention_multiplier", "blocks.*.attention.scale", default=1.0),
        Key("logits_scaling", "head.scale", default=1.0, to=lambda n: 1 / n, back=lambda s: 1 / s),
    )


@hookimpl
def register_components(register: Register) -> None:
    register("granite", Granite)
