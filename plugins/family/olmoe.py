"""OLMoE: experts in every layer, norms over all heads' queries and keys.  Muennighoff et al. 2024, arXiv:2409.02060."""

from __future__ import annotations

from lamina.core import (
    ACTIVATIONS,
    EXPERTS_META,
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
    without,
)


class OLMoE(LlamaLike):
    """OLMoE-1B-7B."""

    paper = "Muennighoff et al. 2024, arXiv:2409.02060"
    model_types = ("olmoe",)
    architecture = "OlmoeForCausalLM"
    template = llama_template(
        {
            "attention": {"qk_norm": {"name": "rms"}, "qk_norm_over": "all"},
            "ffn": {"name": "moe", "router": {"name": "softmax_top_k"}, "expert": {"name": "gated"}, "shared": None},
        }
    )
    keys = (
        *defaults(without(LLAMA_KEYS, "intermediate_size", "hidden_act", "head_dim"), rms_norm_eps=1e-5),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("clip_qkv", "blocks.*.attention.clip"),
        Key("intermediate_size", "blocks.*.ffn.expert.hidden_dim", default=2048),
        Key("hidden_act", "blocks.*.ffn.expert.activation", default="silu", values=ACTIVATIONS),
        Key("num_experts", "blocks.*.ffn.n_experts", default=64, older=("num_local_experts",)),
        Key("num_experts_per_tok", "blocks.*.ffn.router.experts_per_token", default=8),
        Key("norm_topk_prob", "blocks.*.ffn.router.renormalise", default=False),
    )
    gguf = GGUF(
        "olmoe",
        (
            *SIZES_META,
            EvenHeads(),
            RMS_META,
            RopeMeta(),
            *EXPERTS_META,
            Means("num_key_value_heads", lambda config: config["num_attention_heads"]),
            Means("tie_word_embeddings", False),
        ),
    )
    ignored_keys = ("output_router_logits",)
    training_keys = ("attention_dropout", "router_aux_loss_coef")


@hookimpl
def register_components(register: Register) -> None:
    register("olmoe", OLMoE)
