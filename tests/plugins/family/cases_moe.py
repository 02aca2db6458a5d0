"""Configs of families with experts, and of those built like them."""

from __future__ import annotations

from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
EXPERTS = {**SIZES, "num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 12}
# family -> (config class, model class, options of each case by name)
CASES: dict[str, tuple[str, str, dict[str, dict[str, Any]]]] = {
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {
            "plain": {**EXPERTS, "head_dim": 12, "norm_topk_prob": True},
            "some_dense": {**EXPERTS, "mlp_only_layers": [1], "attention_bias": True, "tie_word_embeddings": True},
            "window": {**EXPERTS, "decoder_sparse_step": 2, "use_sliding_window": True, "sliding_window": 6},
        },
    ),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        "Qwen2MoeForCausalLM",
        {
            "plain": {**EXPERTS, "shared_expert_intermediate_size": 20},
            "some_dense": {
                **EXPERTS,
                "shared_expert_intermediate_size": 8,
                "mlp_only_layers": [0],
                "norm_topk_prob": True,
                "qkv_bias": False,
                "use_sliding_window": True,
                "sliding_window": 6,
                "max_window_layers": 2,
            },
        },
    ),
    "olmoe": (
        "OlmoeConfig",
        "OlmoeForCausalLM",
        {
            "plain": {**SIZES, "num_experts": 5, "num_experts_per_tok": 3},
            "clipped": {
                **SIZES,
                "num_experts": 4,
                "num_experts_per_tok": 2,
                "norm_topk_prob": True,
                "clip_qkv": 0.5,
                "attention_bias": True,
                "num_key_value_heads": 4,
            },
        },
    ),
}
