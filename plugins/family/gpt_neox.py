"""GPT-NeoX and Pythia: parallel sublayers, a part of each head turned.  Black et al. 2022, arXiv:2204.06745."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lamina.core import (
    GGUF,
    LAYER_NORM_META,
    LLAMA_KEYS,
    SIZES_META,
    Inverse,
    Key,
    LlamaLike,
    Means,
    MetaKey,
    Register,
    Rope,
    RopeMeta,
    Woven,
    defaults,
    hookimpl,
    llama_template,
    without,
)


def _head_dim(config: Mapping[str, Any]) -> int:
    return int(config["hidden_size"] // config["num_attention_heads"])


class GPTNeoX(LlamaLike):
    """GPT-NeoX-20B and Pythia."""

    paper = "Black et al. 2022, arXiv:2204.06745"
    model_types = ("gpt_neox",)
    architecture = "GPTNeoXForCausalLM"
    base_prefix = "gpt_neox."
    template = llama_template(
        {"ffn": {"name": "mlp", "bias": True}, "residual": {"name": "plain"}}, norm={"name": "layer"}
    )
    keys = (
        *defaults(
            without(LLAMA_KEYS, "rope_parameters", "num_key_value_heads", "head_dim", "rms_norm_eps"), hidden_act="gelu"
        ),
        Key("layer_norm_eps", "norm.eps", default=1e-5),
        Key("attention_bias", "blocks.*.attention.bias", default=True),
        Key("use_parallel_residual", "blocks.*.flow", default=True, values={True: "parallel", False: "sequential"}),
        Key("hidden_dropout", "embedding.dropout", "blocks.*.residual.dropout", default=0.0),
        Rope(
            partial=True,
            fraction=0.25,
            fraction_keys=("partial_rotary_factor", "rotary_pct"),
            theta_keys=("rope_theta", "rotary_emb_base"),
        ),
    )
    gguf = GGUF(
        "gptneox",
        (
            *SIZES_META,
            LAYER_NORM_META,
            RopeMeta(),
            MetaKey("use_parallel_residual", "use_parallel_residual", bool),
            Means("tie_word_embeddings", False),
        ),
        {"attn_qkv": lambda config: Inverse(Woven(config["num_attention_heads"], (_head_dim(config),) * 3))},
    )
    ignored_keys = ("classifier_dropout",)
    ignored_tensors = ("*.rotary_emb.inv_freq", "*.attention.bias", "*.attention.masked_bias")

    embedding_name = "gpt_neox.embed_in"
    layer_name = "gpt_neox.layers.{}"
    norm_name = "gpt_neox.final_layer_norm"
    head_name = "embed_out"
    attention_names: ClassVar = {"qkv": "attention.query_key_value", "out": "attention.dense"}
    qkv_weave = True
    ffn_names: ClassVar = {"up": "mlp.dense_h_to_4h", "down": "mlp.dense_4h_to_h"}


@hookimpl
def register_components(register: Register) -> None:
    register("gpt_neox", GPTNeoX)
