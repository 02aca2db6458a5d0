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
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "mscale": 0.7,
    "mscale_all_dim": 0.7,
}
LATENT = {
    **SIZES,
    "num_key_value_heads": 4,
    "kv_lora_rank": 12,
    "q_lora_rank": 14,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 12,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
GROUPED = {"n_routed_experts": 12, "n_group": 4, "topk_group": 2}
GRANITE = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.2,
    "logits_scaling": 3.0,
}
ERNIE = {"moe_num_experts": 5, "moe_k": 3, "moe_intermediate_size": 12}
UNTIED = {"tie_word_embeddings": False}
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
    "deepseek_v3": (
        "DeepseekV3Config",
        "DeepseekV3ForCausalLM",
        {
            "plain": LATENT,
            "grouped": {**LATENT, **GROUPED, "q_lora_rank": None, "n_shared_experts": 2, "attention_bias": True},
            "yarn": {**LATENT, "rope_parameters": YARN, "rope_interleave": False, "norm_topk_prob": False},
            "all_dim": {
                **LATENT,
                "rope_parameters": {key: value for key, value in YARN.items() if key != "mscale"},
                "first_k_dense_replace": 0,
            },
            "dense": {**LATENT, "first_k_dense_replace": 3, "tie_word_embeddings": True},
        },
    ),
    "deepseek_v2": (
        "DeepseekV2Config",
        "DeepseekV2ForCausalLM",
        {
            "plain": {**LATENT, "q_lora_rank": None},
            "grouped": {
                **LATENT,
                **GROUPED,
                "topk_method": "group_limited_greedy",
                "routed_scaling_factor": 3.0,
                "n_shared_experts": 1,
                "attention_bias": True,
                "mlp_bias": True,
            },
            "yarn": {**LATENT, "rope_parameters": {**YARN, "mscale": 1.2}, "first_k_dense_replace": 2},
        },
    ),
    "gpt_oss": (
        "GptOssConfig",
        "GptOssForCausalLM",
        {
            "plain": {**SIZES, "head_dim": 12, "num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 6},
            "scaled": {
                **SIZES,
                "head_dim": 8,
                "num_local_experts": 4,
                "num_experts_per_tok": 2,
                "attention_bias": False,
                "sliding_window": 5,
                "swiglu_alpha": 1.2,
                "swiglu_limit": 0.6,
                "layer_types": ["full_attention", "full_attention", "sliding_attention"],
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 500.0,
                    "factor": 4.0,
                    "truncate": False,
                    "original_max_position_embeddings": 16,
                },
            },
        },
    ),
    "granite": (
        "GraniteConfig",
        "GraniteForCausalLM",
        {
            "plain": {**SIZES, **GRANITE, "head_dim": 12},
            "biases": {**SIZES, **GRANITE, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        },
    ),
    "granitemoe": (
        "GraniteMoeConfig",
        "GraniteMoeForCausalLM",
        {
            "plain": {**SIZES, **GRANITE, "head_dim": 12, "num_local_experts": 5, "num_experts_per_tok": 3},
            "biases": {**SIZES, **GRANITE, "num_local_experts": 4, "attention_bias": True},
        },
    ),
    "ernie4_5_moe": (
        "Ernie4_5_MoeConfig",
        "Ernie4_5_MoeForCausalLM",
        {
            "plain": {**SIZES, **ERNIE, **UNTIED, "head_dim": 12},
            "biases": {**SIZES, **ERNIE, "use_bias": True, "moe_num_shared_experts": 1, "moe_norm_min": 0.9, **UNTIED},
            "some": {
                **SIZES,
                **ERNIE,
                "num_hidden_layers": 6,
                "moe_layer_start_index": 1,
                "moe_layer_end_index": 4,
                "moe_layer_interval": 2,
                "moe_num_shared_experts": 0,
            },
        },
    ),
}
