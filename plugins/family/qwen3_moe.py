"""Qwen3 with experts: Qwen3 whose layers choose among many small networks.  Yang et al. 2025, arXiv:2505.09388."""

from __future__ import annotations

from typing import Any

from lamina.core import (
    ACTIVATIONS,
    EXPERTS_META,
    GGUF,
    LLAMA_KEYS,
    LLAMA_META,
    ConfigKeys,
    Key,
    LlamaLike,
    Means,
    MetaKey,
    Register,
    defaults,
    hookimpl,
    llama_template,
    sparse_layers,
    without,
    write_sparse_layers,
)

EXPERTS = {"name": "moe", "router": {"name": "softmax_top_k"}, "expert": {"name": "gated"}, "shared": None}
WINDOWED = {"mask": {"name": "sliding"}}


def _experts(option: str) -> tuple[str, str]:
    return f"blocks.moe.ffn.{option}", f"blocks.moe_sliding.ffn.{option}"


class Qwen3MoE(LlamaLike):
    """Qwen3-30B-A3B and Qwen3-235B-A22B. All layers have a window, or none has."""

    paper = "Yang et al. 2025, arXiv:2505.09388"
    model_types = ("qwen3_moe",)
    architecture = "Qwen3MoeForCausalLM"
    template = llama_template(
        {"attention": {"mask": "causal", "qk_norm": {"name": "rms"}}},
        blocks={
            "moe": {"ffn": EXPERTS},
            "dense": {},
            "moe_sliding": {"ffn": EXPERTS, "attention": WINDOWED},
            "dense_sliding": {"attention": WINDOWED},
        },
    )
    keys = (
        *defaults(without(LLAMA_KEYS, "intermediate_size", "hidden_act"), num_key_value_heads=4),
        Key("intermediate_size", "blocks.dense.ffn.hidden_dim", "blocks.dense_sliding.ffn.hidden_dim", default=6144),
        Key(
            "hidden_act",
            *_experts("expert.activation"),
            "blocks.dense.ffn.activation",
            "blocks.dense_sliding.ffn.activation",
            default="silu",
            values=ACTIVATIONS,
        ),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key(
            "sliding_window",
            "blocks.moe_sliding.attention.mask.window",
            "blocks.dense_sliding.attention.mask.window",
            default=4096,
        ),
        Key("moe_intermediate_size", *_experts("expert.hidden_dim"), default=768),
        Key("num_experts", *_experts("n_experts"), default=128, older=("num_local_experts",)),
        Key("num_experts_per_tok", *_experts("router.experts_per_token"), default=8),
        Key("norm_topk_prob", *_experts("router.renormalise"), default=False),
    )
    gguf = GGUF(
        "qwen3moe",
        (
            *LLAMA_META,
            *EXPERTS_META,
            MetaKey("expert_feed_forward_length", "moe_intermediate_size"),
            Means("norm_topk_prob", True),
        ),
    )
    # Windows begin in all layers here, whatever this key of the dense models says.
    ignored_keys = ("output_router_logits", "max_window_layers")
    training_keys = ("attention_dropout", "router_aux_loss_coef")

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        slides = config.get("use_sliding_window", False) and config.get("sliding_window", 4096) is not None
        window = "_sliding" if slides else ""
        return [("moe" if chosen else "dense") + window for chosen in sparse_layers(config, n_layers)]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        write_sparse_layers((role.startswith("moe") for role in roles), config)
        config["use_sliding_window"] = roles[0].endswith("_sliding")


@hookimpl
def register_components(register: Register) -> None:
    register("qwen3_moe", Qwen3MoE)
