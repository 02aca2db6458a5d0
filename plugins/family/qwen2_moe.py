"""Qwen2 with experts, and a network that all tokens pass through a gate.  Yang et al. 2024, arXiv:2407.10671."""

from __future__ import annotations

from typing import Any

from lamina.core import (
    ACTIVATIONS,
    EXPERTS_META,
    GGUF,
    LLAMA_KEYS,
    RMS_META,
    SIZES_META,
    ConfigKeys,
    EvenHeads,
    Key,
    Means,
    MetaKey,
    Register,
    RopeMeta,
    TypedLayers,
    defaults,
    hookimpl,
    llama_template,
    sparse_layers,
    without,
    write_sparse_layers,
)

EXPERTS = {
    "name": "moe",
    "router": {"name": "softmax_top_k"},
    "expert": {"name": "gated"},
    "shared": {"name": "gated"},
    "shared_gate": True,
}
WINDOWED = {"mask": {"name": "sliding"}}


def _experts(option: str) -> tuple[str, str]:
    return f"blocks.moe.ffn.{option}", f"blocks.moe_sliding.ffn.{option}"


class Qwen2MoE(TypedLayers):
    """Qwen1.5-MoE-A2.7B and Qwen2-57B-A14B."""

    paper = "Yang et al. 2024, arXiv:2407.10671"
    model_types = ("qwen2_moe",)
    architecture = "Qwen2MoeForCausalLM"
    template = llama_template(
        {"attention": {"mask": "causal", "out_bias": False}},
        blocks={
            "moe": {"ffn": EXPERTS},
            "dense": {},
            "moe_sliding": {"ffn": EXPERTS, "attention": WINDOWED},
            "dense_sliding": {"attention": WINDOWED},
        },
    )
    keys = (
        *defaults(without(LLAMA_KEYS, "intermediate_size", "hidden_act"), num_key_value_heads=16),
        Key("intermediate_size", "blocks.dense.ffn.hidden_dim", "blocks.dense_sliding.ffn.hidden_dim", default=5632),
        Key(
            "hidden_act",
            *_experts("expert.activation"),
            *_experts("shared.activation"),
            "blocks.dense.ffn.activation",
            "blocks.dense_sliding.ffn.activation",
            default="silu",
            values=ACTIVATIONS,
        ),
        Key("qkv_bias", "blocks.*.attention.bias", default=True),
        Key(
            "sliding_window",
            "blocks.moe_sliding.attention.mask.window",
            "blocks.dense_sliding.attention.mask.window",
        ),
        Key("moe_intermediate_size", *_experts("expert.hidden_dim"), default=1408),
        Key("shared_expert_intermediate_size", *_experts("shared.hidden_dim"), default=5632),
        Key("num_experts", *_experts("n_experts"), default=60),
        Key("num_experts_per_tok", *_experts("router.experts_per_token"), default=4),
        Key("norm_topk_prob", *_experts("router.renormalise"), default=False),
    )
    gguf = GGUF(
        "qwen2moe",
        (
            *SIZES_META,
            EvenHeads(),
            RMS_META,
            RopeMeta(),
            *EXPERTS_META,
            MetaKey("expert_feed_forward_length", "moe_intermediate_size"),
            MetaKey("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
            Means("tie_word_embeddings", False),
        ),
    )
    ignored_keys = ("output_router_logits",)
    training_keys = ("attention_dropout", "router_aux_loss_coef")

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        last = config.number("max_window_layers", 28) or 0
        slides = config.get("use_sliding_window", False)
        return [
            "sliding_attention" if slides and layer % 2 == 0 and layer < last else "full_attention"
            for layer in range(n_layers)
        ]

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        config.get("max_window_layers")
        config.get("use_sliding_window")
        windows = ["_sliding" if role == "sliding" else "" for role in super().roles(config, n_layers)]
        pairs = zip(sparse_layers(config, n_layers), windows, strict=True)
        return [("moe" if chosen else "dense") + window for chosen, window in pairs]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        super().write_roles(["sliding" if role.endswith("_sliding") else "full" for role in roles], config)
        write_sparse_layers((role.startswith("moe") for role in roles), config)
        config["use_sliding_window"] = any(role.endswith("_sliding") for role in roles)


@hookimpl
def register_components(register: Register) -> None:
    register("qwen2_moe", Qwen2MoE)
