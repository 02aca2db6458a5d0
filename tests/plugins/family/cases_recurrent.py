"""Configs of families without attention, or with it in some of their layers."""

from __future__ import annotations

from typing import Any

MAMBA: dict[str, Any] = {"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 3}
# Everything that Mamba and Falcon Mamba have in common, at other than its usual value.
OTHERWISE: dict[str, Any] = {
    "state_size": 5,
    "conv_kernel": 3,
    "use_bias": True,
    "use_conv_bias": False,
    "hidden_act": "gelu",
    "time_step_rank": 3,
    "layer_norm_epsilon": 0.01,
    "residual_in_fp32": False,
    "tie_word_embeddings": False,
}
MAMBA2: dict[str, Any] = {**MAMBA, "num_heads": 6, "head_dim": 8, "state_size": 5, "n_groups": 1}
GROUPED: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
JAMBA: dict[str, Any] = {**GROUPED, "num_experts": 5, "num_experts_per_tok": 3, "mamba_d_state": 5}
BAMBA: dict[str, Any] = {**GROUPED, "hidden_size": 32, "mamba_n_heads": 4, "mamba_d_state": 5}
BAMBA_OTHERWISE: dict[str, Any] = {
    "mamba_n_heads": 6,
    "mamba_n_groups": 3,
    "mamba_expand": 3,
    "mamba_d_conv": 3,
    "mamba_conv_bias": False,
    "mamba_proj_bias": True,
    "mamba_chunk_size": 4,
    "time_step_limit": [0.02, 0.05],
    "attention_bias": True,
    "hidden_act": "gelu",
    "rms_norm_eps": 0.01,
    "tie_word_embeddings": True,
}
FACTORS: dict[str, Any] = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.2,
    "logits_scaling": 3.0,
}
HYBRID: dict[str, Any] = {
    **BAMBA,
    **FACTORS,
    "shared_intermediate_size": 12,
    "num_local_experts": 5,
    "num_experts_per_tok": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "max_position_embeddings": 64,
}
GRIFFIN: dict[str, Any] = {**GROUPED, "hidden_size": 32, "num_hidden_layers": 4, "attention_window_size": 6}
RWKV: dict[str, Any] = {"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 3}
MINIMAX: dict[str, Any] = {**GROUPED, "num_local_experts": 5, "num_experts_per_tok": 3, "max_position_embeddings": 64}
# family -> (config class, model class, options of each case by name)
CASES: dict[str, tuple[str, str, dict[str, dict[str, Any]]]] = {
    "mamba": (
        "MambaConfig",
        "MambaForCausalLM",
        {
            "plain": MAMBA,
            "otherwise": {**MAMBA, **OTHERWISE, "expand": 3},
            "width": {**MAMBA, "intermediate_size": 20},
        },
    ),
    "falcon_mamba": (
        "FalconMambaConfig",
        "FalconMambaForCausalLM",
        {
            "plain": MAMBA,
            "otherwise": {**MAMBA, **OTHERWISE, "expand": 16, "intermediate_size": 36, "mixer_rms_eps": 0.01},
        },
    ),
    "mamba2": (
        "Mamba2Config",
        "Mamba2ForCausalLM",
        {
            "plain": MAMBA2,
            "grouped": {**MAMBA2, "n_groups": 3, "chunk_size": 4, "tie_word_embeddings": True},
            "otherwise": {
                **MAMBA2,
                "num_heads": 9,
                "n_groups": 3,
                "expand": 3,
                "conv_kernel": 3,
                "use_bias": True,
                "use_conv_bias": False,
                "hidden_act": "gelu",
                "layer_norm_epsilon": 0.01,
                "time_step_limit": [0.02, 0.05],
            },
        },
    ),
    "jamba": (
        "JambaConfig",
        "JambaForCausalLM",
        {
            "plain": {
                **JAMBA,
                "num_hidden_layers": 4,
                "attn_layer_period": 3,
                "attn_layer_offset": 1,
                "head_dim": 10,
            },
            "otherwise": {
                **JAMBA,
                "attn_layer_period": 3,
                "attn_layer_offset": 2,
                "expert_layer_period": 1,
                "expert_layer_offset": 0,
                "mamba_expand": 3,
                "mamba_d_conv": 3,
                "mamba_dt_rank": 3,
                "mamba_conv_bias": False,
                "mamba_proj_bias": True,
                "hidden_act": "gelu",
                "rms_norm_eps": 0.01,
                "tie_word_embeddings": True,
            },
            "dense": {**JAMBA, "num_experts": 1},
        },
    ),
    "bamba": (
        "BambaConfig",
        "BambaForCausalLM",
        {
            "plain": {**BAMBA, "attn_layer_indices": [1]},
            "quarter": {**BAMBA, "attn_layer_indices": [1], "rope_parameters": {"partial_rotary_factor": 0.25}},
            "otherwise": {
                **BAMBA,
                **BAMBA_OTHERWISE,
                "attn_layer_indices": [0, 2],
                "mlp_bias": True,
                "head_dim": 16,
                "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
            },
            "recurrent": BAMBA,
        },
    ),
    "granitemoehybrid": (
        "GraniteMoeHybridConfig",
        "GraniteMoeHybridForCausalLM",
        {
            "plain": HYBRID,
            "otherwise": {
                **HYBRID,
                **BAMBA_OTHERWISE,
                "head_dim": 12,
                "position_embedding_type": "rope",
                "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
            },
            "dense": {**HYBRID, "num_local_experts": 0, "position_embedding_type": "rope"},
            "recurrent": {**BAMBA, **FACTORS, "shared_intermediate_size": 12, "num_local_experts": 4},
        },
    ),
    "recurrent_gemma": (
        "RecurrentGemmaConfig",
        "RecurrentGemmaForCausalLM",
        {
            "plain": GRIFFIN,
            "otherwise": {
                **GRIFFIN,
                "block_types": ["attention", "recurrent"],
                "lru_width": 20,
                "conv1d_width": 3,
                "attention_bias": True,
                "hidden_activation": "relu",
                "logits_soft_cap": 2.0,
                "rms_norm_eps": 0.01,
                "tie_word_embeddings": False,
                "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0},
            },
            "recurrent": {**GRIFFIN, "hidden_size": 16, "block_types": ["recurrent"]},
        },
    ),
    "rwkv": (
        "RwkvConfig",
        "RwkvForCausalLM",
        {
            "plain": RWKV,
            "rescaled": {**RWKV, "num_hidden_layers": 5, "rescale_every": 2, "layer_norm_epsilon": 0.5},
            "otherwise": {
                **RWKV,
                "attention_hidden_size": 20,
                "intermediate_size": 36,
                "rescale_every": -1,
                "layer_norm_epsilon": 0.01,
                "tie_word_embeddings": True,
            },
        },
    ),
    "minimax": (
        "MiniMaxConfig",
        "MiniMaxForCausalLM",
        {
            "plain": {**MINIMAX, "block_size": 4},
            "otherwise": {
                **MINIMAX,
                "num_hidden_layers": 4,
                "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
                "head_dim": 10,
                "full_attn_alpha_factor": 1.3,
                "full_attn_beta_factor": 0.7,
                "linear_attn_alpha_factor": 0.6,
                "linear_attn_beta_factor": 1.4,
                "mlp_alpha_factor": 1.1,
                "mlp_beta_factor": 0.9,
                "sliding_window": 6,
                "hidden_act": "gelu",
                "rms_norm_eps": 0.01,
                "router_jitter_noise": 0.1,
                "tie_word_embeddings": True,
                "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
            },
            "lightning": {**MINIMAX, "num_hidden_layers": 2, "layer_types": ["linear_attention"] * 2},
        },
    ),
}
