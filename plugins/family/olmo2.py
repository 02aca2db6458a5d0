"""OLMo 2: norms on what sublayers give, queries and keys normed over all heads.  OLMo team 2024, arXiv:2501.00656."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import (
    GGUF,
    LLAMA_KEYS,
    RMS_META,
    SIZES_META,
    EvenHeads,
    Key,
    LlamaLike,
    Means,
    Register,
    RopeMeta,
    defaults,
    hookimpl,
    llama_template,
)


class Olmo2(LlamaLike):
    """OLMo 2."""

    paper = "OLMo team 2024, arXiv:2501.00656"
    model_types = ("olmo2",)
    architecture = "Olmo2ForCausalLM"
    template = llama_template({"placement": "output", "attention": {"qk_norm": {"name": "rms"}, "qk_norm_over": "all"}})
    keys = (*defaults(LLAMA_KEYS, rms_norm_eps=1e-5), Key("attention_bias", "blocks.*.attention.bias", default=False))
    gguf = GGUF(
        "olmo2",
        (*SIZES_META, EvenHeads(), RMS_META, RopeMeta(), Means("tie_word_embeddings", False)),
        serves=lambda meta: not meta.get("attention.sliding_window"),
    )
    norms: ClassVar = {"attention_out": "post_attention_layernorm", "ffn_out": "post_feedforward_layernorm"}


@hookimpl
def register_components(register: Register) -> None:
    register("olmo2", Olmo2)
