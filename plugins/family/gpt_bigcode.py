"""SantaCoder and StarCoder: GPT-2 with one head of keys and values.  Ben Allal et al. 2023, arXiv:2301.03988."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    GGUF,
    Always,
    ConfigKeys,
    Either,
    Fixed,
    Key,
    LlamaLike,
    MetaKey,
    Move,
    Register,
    ResolvedSpec,
    hookimpl,
    llama_template,
    move,
)


class GPTBigCode(LlamaLike):
    """SantaCoder, StarCoder and StarCoderBase."""

    paper = "Ben Allal et al. 2023, arXiv:2301.03988; Li et al. 2023, arXiv:2305.06161"
    model_types = ("gpt_bigcode",)
    architecture = "GPTBigCodeForCausalLM"
    base_prefix = "transformer."
    template = llama_template(
        {"attention": {"bias": True}, "ffn": {"name": "mlp", "bias": True}, "residual": {"name": "plain"}},
        position={"name": "learned"},
        norm={"name": "layer"},
    )
    keys = (
        Key("vocab_size", "vocab_size", required=True),
        Key("n_embd", "dim", required=True),
        Key("n_positions", "context_length", required=True),
        Key("n_layer", "n_layers", required=True),
        Key("n_head", "blocks.*.attention.n_heads", required=True),
        Key("n_inner", "blocks.*.ffn.hidden_dim"),
        Key("activation_function", "blocks.*.ffn.activation", default="gelu_pytorch_tanh", values=ACTIVATIONS),
        Key("layer_norm_epsilon", "norm.eps", default=1e-5),
        Key("scale_attn_weights", "blocks.*.attention.scale", default=True, values={True: None, False: 1.0}),
        Key("embd_pdrop", "embedding.dropout", default=0.1),
        Key("resid_pdrop", "blocks.*.residual.dropout", default=0.1),
        Key("tie_word_embeddings", "head.tied", default=True),
        Fixed("add_cross_attention", False),
    )
    gguf = GGUF(
        "starcoder",
        (
            MetaKey("context_length", "n_positions"),
            MetaKey("embedding_length", "n_embd"),
            MetaKey("block_count", "n_layer"),
            MetaKey("feed_forward_length", "n_inner"),
            MetaKey("attention.head_count", "n_head"),
            Always("attention.head_count_kv", 1),
            MetaKey("attention.layer_norm_epsilon", "layer_norm_epsilon", float),
        ),
    )
    # Precisions of the softmax change how half precision rounds; the summary serves other heads.
    ignored_keys = (
        "attention_softmax_in_fp32",
        "inference_runner",
        "max_batch_size",
        "max_sequence_length",
        "num_key_value_heads",
        "pad_key_length",
        "pre_allocate_kv_cache",
        "scale_attention_softmax_in_fp32",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "validate_runner_input",
    )
    training_keys = ("attn_pdrop",)
    ignored_tensors = ("*.attn.bias", "*.attn.masked_bias")

    embedding_name = "transformer.wte"
    layer_name = "transformer.h.{}"
    norm_name = "transformer.ln_f"
    norms: ClassVar = {"attention_in": "ln_1", "ffn_in": "ln_2"}
    attention_names: ClassVar = {"qkv": "attn.c_attn", "out": "attn.c_proj"}
    qkv_weave = True
    ffn_names: ClassVar = {"up": "mlp.c_fc", "down": "mlp.c_proj"}

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        if config.get("multi_query", True):
            data["blocks"]["block"]["attention"]["n_kv_heads"] = 1
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        attention: Any = self.by_role(spec)[0]["blocks"]["block"]["attention"]
        return {**super().write(spec), "multi_query": bool(attention) and attention.get("n_kv_heads") == 1}

    def moves(self, spec: ResolvedSpec) -> Iterable[Move | Either]:
        yield from super().moves(spec)
        yield move("embedding.position.table", "transformer.wpe")


@hookimpl
def register_components(register: Register) -> None:
    register("gpt_bigcode", GPTBigCode)
