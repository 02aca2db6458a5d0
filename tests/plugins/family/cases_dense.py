"""Configs of further dense families."""

from __future__ import annotations

from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
UNTIED = {"tie_word_embeddings": False}
ROPE = {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}}

CASES: dict[str, tuple[str, str, dict[str, dict[str, Any]]]] = {
    "olmo": (
        "OlmoConfig",
        "OlmoForCausalLM",
        {
            "plain": {**SIZES, "head_dim": 12},
            "clipped": {**SIZES, "clip_qkv": 0.5, "attention_bias": True, "tie_word_embeddings": True},
        },
    ),
    "olmo3": (
        "Olmo3Config",
        "Olmo3ForCausalLM",
        {
            "plain": {**SIZES, "sliding_window": 6, "head_dim": 12},
            "yarn": {
                **SIZES,
                "sliding_window": 5,
                "attention_bias": True,
                "layer_types": ["full_attention", "sliding_attention"] * 2,
                "rope_parameters": {
                    "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
                    "full_attention": {
                        "rope_type": "yarn",
                        "rope_theta": 500.0,
                        "factor": 4.0,
                        "original_max_position_embeddings": 16,
                        "attention_factor": 1.3,
                    },
                },
            },
        },
    ),
    "smollm3": (
        "SmolLM3Config",
        "SmolLM3ForCausalLM",
        {
            "plain": {**SIZES, **UNTIED, "head_dim": 12},
            "window": {
                **SIZES,
                **UNTIED,
                **ROPE,
                "attention_bias": True,
                "mlp_bias": True,
                "use_sliding_window": True,
                "sliding_window": 6,
                "no_rope_layers": [1, 0, 1, 0],
                "layer_types": ["full_attention", "full_attention", "sliding_attention", "sliding_attention"],
            },
        },
    ),
    "cohere": (
        "CohereConfig",
        "CohereForCausalLM",
        {
            "plain": {**SIZES, "logit_scale": 0.5},
            "untied": {**SIZES, **UNTIED, **ROPE, "attention_bias": True, "logit_scale": 2.0},
            "normed": {**SIZES, "use_qk_norm": True, "head_dim": 12, "layer_norm_eps": 0.01, "logit_scale": 0.5},
        },
    ),
    "cohere2": (
        "Cohere2Config",
        "Cohere2ForCausalLM",
        {
            "plain": {**SIZES, "sliding_window": 6, "logit_scale": 0.5, "head_dim": 12},
            "untied": {
                **SIZES,
                **UNTIED,
                **ROPE,
                "logit_scale": 2.0,
                "sliding_window": 5,
                "attention_bias": True,
                "layer_types": ["full_attention", "sliding_attention"] * 2,
            },
        },
    ),
}
