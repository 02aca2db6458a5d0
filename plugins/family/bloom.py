"""BLOOM: ALiBi, LayerNorm on the embedding too, biases everywhere.  BigScience 2022, arXiv:2211.05100."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from lamina.core import (
    GGUF,
    Always,
    Either,
    Fixed,
    Inverse,
    Key,
    LlamaLike,
    MetaKey,
    Move,
    Register,
    ResolvedSpec,
    Woven,
    hookimpl,
    llama_template,
    move,
)


class Bloom(LlamaLike):
    """BLOOM and BLOOMZ."""

    paper = "BigScience 2022, arXiv:2211.05100"
    model_types = ("bloom",)
    architecture = "BloomForCausalLM"
    base_prefix = "transformer."
    template = llama_template(
        {
            "attention": {"bias": True},
            "ffn": {"name": "mlp", "bias": True, "activation": "gelu_tanh"},
            "residual": {"name": "plain"},
        },
        position={"name": "alibi"},
        norm={"name": "layer"},
        embedding={"norm": "layer"},
    )
    keys = (
        Key("vocab_size", "vocab_size", required=True),
        Key("hidden_size", "dim", required=True, older=("n_embed",)),
        Key("seq_length", "context_length", default=2048),  # of training; the model itself has no limit
        Key("n_layer", "n_layers", required=True, older=("num_hidden_layers",)),
        Key("n_head", "blocks.*.attention.n_heads", required=True, older=("num_attention_heads",)),
        Key("layer_norm_epsilon", "norm.eps", "embedding.norm.eps", default=1e-5),
        Key("hidden_dropout", "blocks.*.residual.dropout", default=0.0),
        Key("tie_word_embeddings", "head.tied", default=True),
        Fixed("apply_residual_connection_post_layernorm", False),
    )
    gguf = GGUF(
        "bloom",
        (
            MetaKey("context_length", "seq_length"),
            MetaKey("embedding_length", "hidden_size"),
            MetaKey("block_count", "n_layer"),
            Always("feed_forward_length", lambda config: 4 * config["hidden_size"]),
            MetaKey("attention.head_count", "n_head", also=("attention.head_count_kv",)),
            MetaKey("attention.layer_norm_epsilon", "layer_norm_epsilon", float),
        ),
        {"attn_qkv": lambda config: Inverse(Woven(config["n_head"], (config["hidden_size"] // config["n_head"],) * 3))},
        {
            "transformer.word_embeddings_layernorm": "token_embd_norm",
            "transformer.h.{}.post_attention_layernorm": "blk.{}.ffn_norm",
        },
    )
    # How training was spread over devices, and how its kernels were fused and rounded.
    ignored_keys = (
        "attention_softmax_in_fp32",
        "bias_dropout_fusion",
        "masked_softmax_fusion",
        "n_inner",
        "offset_alibi",
        "pretraining_tp",
        "skip_bias_add",
        "skip_bias_add_qkv",
        "slow_but_exact",
        "unk_token_id",
    )

    embedding_name = "transformer.word_embeddings"
    layer_name = "transformer.h.{}"
    norm_name = "transformer.ln_f"
    attention_names: ClassVar = {"qkv": "self_attention.query_key_value", "out": "self_attention.dense"}
    qkv_weave = True
    ffn_names: ClassVar = {"up": "mlp.dense_h_to_4h", "down": "mlp.dense_4h_to_h"}

    def moves(self, spec: ResolvedSpec) -> Iterable[Move | Either]:
        yield from super().moves(spec)
        yield move("embedding.norm", "transformer.word_embeddings_layernorm")


@hookimpl
def register_components(register: Register) -> None:
    register("bloom", Bloom)
