"""StarCoder2: grouped queries, rotary positions, LayerNorm and a plain MLP.  Lozhkov et al. 2024, arXiv:2402.19173."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import (
    FULL_OR_SLIDING,
    GGUF,
    LLAMA_KEYS,
    SIZES_META,
    WINDOW,
    EvenHeads,
    Key,
    MetaKey,
    Register,
    RopeMeta,
    WindowedLayers,
    defaults,
    hookimpl,
    llama_template,
    without,
)


class Starcoder2(WindowedLayers):
    """StarCoder2 of every size."""

    paper = "Lozhkov et al. 2024, arXiv:2402.19173"
    model_types = ("starcoder2",)
    architecture = "Starcoder2ForCausalLM"
    template = llama_template(
        {"ffn": {"name": "mlp"}, "residual": {"name": "plain"}}, norm={"name": "layer"}, blocks=FULL_OR_SLIDING
    )
    keys = (
        *defaults(
            without(LLAMA_KEYS, "rms_norm_eps"),
            num_key_value_heads=2,
            hidden_act="gelu_pytorch_tanh",
            tie_word_embeddings=True,
        ),
        WINDOW,
        Key("norm_epsilon", "norm.eps", default=1e-5),
        Key("use_bias", "blocks.*.attention.bias", "blocks.*.ffn.bias", default=True),
        Key("embedding_dropout", "embedding.dropout", default=0.0),
        Key("residual_dropout", "blocks.*.residual.dropout", default=0.0),
    )
    gguf = GGUF(
        "starcoder2",
        (*SIZES_META, EvenHeads(), MetaKey("attention.layer_norm_epsilon", "norm_epsilon", float), RopeMeta()),
    )
    # The published configs say the kinds of norm and of FFN in words, and there is one of each.
    ignored_keys = ("mlp_type", "norm_type", "pretraining_tp")
    ffn_names: ClassVar = {"up": "mlp.c_fc", "down": "mlp.c_proj"}


@hookimpl
def register_components(register: Register) -> None:
    register("starcoder2", Starcoder2)
