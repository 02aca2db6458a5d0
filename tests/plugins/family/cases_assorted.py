"""Configs of families that each have something no other has."""

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
MULTI = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
BIASED = {"attention_bias": True}
TIED = {"tie_word_embeddings": True}
LLAMA4 = {
    **SIZES,
    "num_hidden_layers": 4,
    "head_dim": 8,
    "intermediate_size": 12,
    "intermediate_size_mlp": 20,
    "num_local_experts": 4,
    "attention_chunk_size": 6,
    "floor_scale": 4,
}
LFM2 = {**SIZES, "full_attn_idxs": [1], "block_multiple_of": 8, "tie_word_embeddings": False}
PARTIAL = {"rope_theta": 300.0, "partial_rotary_factor": 0.5}
LINEAR = {"rope_type": "linear", "factor": 2.0}
MINIMAX = {**SIZES, "intermediate_size": 12, "num_local_experts": 5, "num_experts_per_tok": 3}
DBRX = {"vocab_size": 61, "d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 64}
THETA = {"rope_theta": 300.0}
CLIPPED = {**THETA, "clip_qkv": 0.5}  # without rope_theta there the model cannot be made, without clip_qkv not run

CASES: dict[str, tuple[str, str, dict[str, dict[str, Any]]]] = {
    "minimax_m2": (
        "MiniMaxM2Config",
        "MiniMaxM2ForCausalLM",
        {
            "plain": {**MINIMAX, "head_dim": 12, "rotary_dim": 6},
            "tied": {**MINIMAX, **TIED, "head_dim": 8, "num_experts_per_tok": 2, "hidden_act": "gelu"},
            "yarn": {
                **MINIMAX,
                "head_dim": 8,
                "rope_parameters": {
                    **PARTIAL,
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 16,
                },
            },
        },
    ),
    "dbrx": (
        "DbrxConfig",
        "DbrxForCausalLM",
        {
            "plain": {
                **DBRX,
                "attn_config": {**CLIPPED, "kv_n_heads": 2},
                "ffn_config": {"ffn_hidden_size": 20, "moe_num_experts": 5, "moe_top_k": 3},
                "rope_parameters": {**THETA, **LINEAR},
            },
            "norm": {
                **DBRX,
                "attn_config": CLIPPED,
                "ffn_config": {
                    "ffn_hidden_size": 12,
                    "ffn_act_fn": {"name": "gelu"},
                    "moe_num_experts": 4,
                    "moe_top_k": 2,
                    "moe_normalize_expert_weights": 3.0,
                },
            },
            "one": {
                **DBRX,
                "attn_config": {**CLIPPED, "kv_n_heads": 4, "clip_qkv": 2.0},
                "ffn_config": {
                    "ffn_hidden_size": 12,
                    "moe_num_experts": 4,
                    "moe_top_k": 1,
                    "moe_normalize_expert_weights": None,
                },
            },
        },
    ),
    "persimmon": (
        "PersimmonConfig",
        "PersimmonForCausalLM",
        {
            "plain": MULTI,
            "tied": {**MULTI, **TIED, "qk_layernorm": False, "hidden_act": "gelu_new", "layer_norm_eps": 1e-2},
            "scaled": {**MULTI, "rope_parameters": {**PARTIAL, **LINEAR, "partial_rotary_factor": 0.25}},
        },
    ),
    "diffllama": (
        "DiffLlamaConfig",
        "DiffLlamaForCausalLM",
        {
            "plain": MULTI,
            "groups": {**SIZES, **BIASED, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 6},
            "scaled": {**SIZES, **TIED, "rope_parameters": {**THETA, **LINEAR}, "rms_norm_eps": 1e-2},
        },
    ),
    "llama4": (
        "Llama4TextConfig",
        "Llama4ForCausalLM",
        {
            "plain": LLAMA4,
            "interleaved": {
                **LLAMA4,
                **BIASED,
                "interleave_moe_layer_step": 2,
                "num_experts_per_tok": 2,
                "no_rope_layers": [0, 1, 1, 0],
                "use_qk_norm": False,
                "attn_scale": 0.5,
            },
            "scaled": {
                **LLAMA4,
                **TIED,
                "moe_layers": [1],
                "attn_temperature_tuning": False,
                "no_rope_layer_interval": 2,
                "layer_types": ["full_attention", "chunked_attention"] * 2,
                "rope_parameters": {
                    **THETA,
                    "rope_type": "llama3",
                    "factor": 4.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 1.0,
                    "original_max_position_embeddings": 16,
                },
            },
            "dense": {**LLAMA4, "moe_layers": [], "num_key_value_heads": 4},
        },
    ),
    "lfm2": (
        "Lfm2Config",
        "Lfm2ForCausalLM",
        {
            "plain": LFM2,
            "biases": {
                **LFM2,
                "conv_bias": True,
                "conv_L_cache": 4,
                "block_auto_adjust_ff_dim": False,
                "layer_types": ["conv", "full_attention", "full_attention"],
                "rope_parameters": {**THETA, **LINEAR},
            },
            "wide": {**LFM2, "block_ffn_dim_multiplier": 1.7, "full_attn_idxs": None, "norm_eps": 1e-2, "head_dim": 12},
        },
    ),
}
