"""Granite: Llama with factors on embeddings, residuals, scores and logits.  IBM 2024, arXiv:2408.13359."""

from __future__ import annotations

from lamina.core import GRANITE_KEYS, LLAMA_KEYS, Key, LlamaLike, Register, hookimpl, llama_template


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


@hookimpl
def register_components(register: Register) -> None:
    register("granite", Granite)
