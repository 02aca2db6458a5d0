"""Configs of the families whose layers keep a state that new keys correct."""

from __future__ import annotations

from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 5,
}
EXPERTS = {
    **SIZES,
    "num_experts": 5,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 20,
}
OTHERS = {
    "layer_types": ["full_attention", "linear_attention", "full_attention"],
    "num_hidden_layers": 3,
    "head_dim": 12,
    "linear_num_key_heads": 3,
    "linear_num_value_heads": 3,
    "linear_conv_kernel_dim": 2,
    "attention_bias": True,
    "tie_word_embeddings": True,
    "hidden_act": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-3,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 500.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "partial_rotary_factor": 0.5,
    },
}
KIMI: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "moe_intermediate_size": 12,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "max_position_embeddings": 64,
    "linear_head_dim": 6,
    "linear_num_heads": 3,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# family -> (config class, model class, options of each case by name)
CASES: dict[str, tuple[str, str, dict[str, dict[str, Any]]]] = {
    "qwen3_next": (
        "Qwen3NextConfig",
        "Qwen3NextForCausalLM",
        {
            "plain": EXPERTS,
            "some_dense": {**EXPERTS, **OTHERS, "mlp_only_layers": [1, 2], "norm_topk_prob": False},
            "sparse_step": {**EXPERTS, "decoder_sparse_step": 3, "full_attention_interval": 2},
        },
    ),
    "qwen3_5": (
        "Qwen3_5TextConfig",
        "Qwen3_5ForCausalLM",
        {"plain": SIZES, "others": {**SIZES, **OTHERS}},
    ),
    "qwen3_5_moe": (
        "Qwen3_5MoeTextConfig",
        "Qwen3_5MoeForCausalLM",
        {"plain": EXPERTS, "others": {**EXPERTS, **OTHERS}},
    ),
    "kimi_linear": (
        "KimiLinearConfig",
        "KimiLinearForCausalLM",
        {
            "plain": KIMI,
            "others": {
                **KIMI,
                "num_hidden_layers": 4,
                "layer_types": ["full_attention", "linear_attention", "full_attention", "linear_attention"],
                "mlp_layer_types": ["sparse", "dense", "dense", "sparse"],
                "q_lora_rank": 14,
                "attention_bias": True,
                "linear_conv_kernel_dim": 3,
                "num_local_experts": 12,
                "n_group": 4,
                "topk_group": 2,
                "n_shared_experts": 2,
                "norm_topk_prob": False,
                "routed_scaling_factor": 1.5,
                "hidden_act": "gelu_pytorch_tanh",
                "rms_norm_eps": 1e-3,
            },
        },
    ),
}
