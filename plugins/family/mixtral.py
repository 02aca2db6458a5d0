"""Mixtral: Mistral with experts of which each token takes two.  Jiang et al. 2024, arXiv:2401.04088."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import (
    ACTIVATIONS,
    FULL_OR_SLIDING,
    GGUF,
    LLAMA_KEYS,
    LLAMA_META,
    PAIRED,
    WINDOW,
    Key,
    Means,
    MetaKey,
    Register,
    Rope,
    WindowedLayers,
    defaults,
    hookimpl,
    llama_template,
    without,
)


class Mixtral(WindowedLayers):
    """Mixtral 8x7B and 8x22B."""

    paper = "Jiang et al. 2024, arXiv:2401.04088"
    model_types = ("mixtral",)
    architecture = "MixtralForCausalLM"
    rank = 5
    template = llama_template(
        {"ffn": {"name": "moe", "router": "softmax_top_k", "expert": "gated"}}, blocks=FULL_OR_SLIDING
    )
    keys = (
        *defaults(
            without(LLAMA_KEYS, "intermediate_size", "hidden_act", "rope_parameters"),
            num_key_value_heads=8,
            rms_norm_eps=1e-5,
        ),
        WINDOW,
        Rope(theta=1e6),
        Key("intermediate_size", "blocks.*.ffn.expert.hidden_dim", required=True),
        Key("hidden_act", "blocks.*.ffn.expert.activation", default="silu", values=ACTIVATIONS),
        Key("num_local_experts", "blocks.*.ffn.n_experts", default=8),
        Key("num_experts_per_tok", "blocks.*.ffn.router.experts_per_token", default=2),
        Key("router_jitter_noise", "blocks.*.ffn.router.jitter", default=0.0),
    )
    gguf = GGUF(
        "llama",
        (
            *LLAMA_META,
            MetaKey("expert_count", "num_local_experts"),
            MetaKey("expert_used_count", "num_experts_per_tok"),
            Means("sliding_window", None),
        ),
        PAIRED,
        serves=lambda meta: bool(meta.get("expert_count")),
    )
    ignored_keys = ("output_router_logits",)
    training_keys = ("attention_dropout", "router_aux_loss_coef")
    router_names: ClassVar = {"linear": "block_sparse_moe.gate"}
    expert_names = (
        "block_sparse_moe.experts.{}.w1",
        "block_sparse_moe.experts.{}.w3",
        "block_sparse_moe.experts.{}.w2",
    )


@hookimpl
def register_components(register: Register) -> None:
    register("mixtral", Mixtral)
