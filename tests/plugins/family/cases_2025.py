"""Configs of families of 2025, and of those before them in their line."""

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
    "pad_token_id": 0,
}
UNTIED = {"tie_word_embeddings": False}


def rope(kind: str = "default", theta: float = 500.0, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
GLM: dict[str, dict[str, Any]] = {
    "plain": {**SIZES, "head_dim": 12},
    "yarn": {**SIZES, "head_dim": 8, "attention_bias": False, "tie_word_embeddings": True, **rope("yarn", **YARN)},
    "whole": {**SIZES, "head_dim": 8, "hidden_act": "gelu", **rope(partial_rotary_factor=1.0)},
}
EXPERTS = {
    **SIZES,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 12,
    "first_k_dense_replace": 1,
}
# family -> (config class, model class, options of each case by name)
CASES: dict[str, tuple[str, str, dict[str, dict[str, Any]]]] = {
    "glm": ("GlmConfig", "GlmForCausalLM", GLM),
    "glm4": ("Glm4Config", "Glm4ForCausalLM", GLM),
    "glm4_moe": (
        "Glm4MoeConfig",
        "Glm4MoeForCausalLM",
        {
            "plain": EXPERTS,
            "normed": {
                **EXPERTS,
                "head_dim": 16,
                "use_qk_norm": True,
                "attention_bias": True,
                "n_shared_experts": 2,
                "first_k_dense_replace": 2,
                "tie_word_embeddings": True,
                **rope("linear", factor=2.0, partial_rotary_factor=0.75),
            },
            "grouped": {
                **EXPERTS,
                "n_routed_experts": 12,
                "n_group": 4,
                "topk_group": 2,
                "norm_topk_prob": False,
                "routed_scaling_factor": 1.5,
                "first_k_dense_replace": 0,
                "rms_norm_eps": 0.01,
                "hidden_act": "gelu",
            },
            "dense": {**EXPERTS, "first_k_dense_replace": 3},
        },
    ),
    "nemotron": (
        "NemotronConfig",
        "NemotronForCausalLM",
        {
            "plain": SIZES,
            "biases": {
                **SIZES,
                "head_dim": 16,
                "attention_bias": True,
                "mlp_bias": True,
                "norm_eps": 0.01,
                "hidden_act": "gelu",
                "tie_word_embeddings": True,
                **rope("llama3", partial_rotary_factor=0.25, **LLAMA3),
            },
        },
    ),
    "exaone4": (
        "Exaone4Config",
        "Exaone4ForCausalLM",
        {
            "plain": {**SIZES, "num_hidden_layers": 5, "sliding_window": 6},
            "full": {
                **SIZES,
                "head_dim": 12,
                "sliding_window": None,
                "layer_types": ["full_attention"] * 3,
                "tie_word_embeddings": True,
                **rope("llama3", **LLAMA3),
            },
            "typed": {
                **SIZES,
                "sliding_window": 5,
                "sliding_window_pattern": "LLLG",
                "layer_types": ["full_attention", "sliding_attention", "full_attention"],
                "rms_norm_eps": 0.01,
                "hidden_act": "gelu",
            },
            "unturned": {**SIZES, "layer_types": ["full_attention"] * 3},
        },
    ),
    "ernie4_5": (
        "Ernie4_5Config",
        "Ernie4_5ForCausalLM",
        {
            "plain": {**SIZES, "head_dim": 12},
            "biases": {**SIZES, "head_dim": None, "use_bias": True, "hidden_act": "gelu", **UNTIED},
            "dynamic": {**SIZES, "head_dim": 8, **rope("dynamic", factor=2.0), "max_position_embeddings": 12},
        },
    ),
    "arcee": (
        "ArceeConfig",
        "ArceeForCausalLM",
        {
            "plain": SIZES,
            "biases": {
                **SIZES,
                "head_dim": 12,
                "attention_bias": True,
                "mlp_bias": True,
                "hidden_act": "silu",
                "rms_norm_eps": 0.01,
                "tie_word_embeddings": True,
                **rope("yarn", **YARN),
            },
        },
    ),
    "seed_oss": (
        "SeedOssConfig",
        "SeedOssForCausalLM",
        {
            "plain": {**SIZES, "head_dim": 12},
            "biases": {
                **SIZES,
                "head_dim": 8,
                "attention_bias": False,
                "attention_out_bias": True,
                "mlp_bias": True,
                "residual_dropout": 0.0,
                "tie_word_embeddings": True,
                **rope("linear", factor=2.0),
            },
        },
    ),
    "helium": (
        "HeliumConfig",
        "HeliumForCausalLM",
        {
            "plain": {**SIZES, "head_dim": 8},
            "biases": {
                **SIZES,
                "head_dim": 8,
                "attention_bias": True,
                "mlp_bias": True,
                "rms_norm_eps": 0.01,
                "hidden_act": "gelu",
                "tie_word_embeddings": True,
                **rope("llama3", **LLAMA3),
            },
        },
    ),
    "nanochat": (
        "NanoChatConfig",
        "NanoChatForCausalLM",
        {
            "plain": SIZES,
            "biases": {
                **SIZES,
                "head_dim": 12,
                "attention_bias": True,
                "final_logit_softcapping": None,
                "rms_norm_eps": 0.01,
                "hidden_act": "silu",
                "tie_word_embeddings": True,
                **rope("linear", factor=2.0),
            },
        },
    ),
    "hunyuan_v1_dense": (
        "HunYuanDenseV1Config",
        "HunYuanDenseV1ForCausalLM",
        {
            "plain": {**SIZES, "head_dim": 12},
            "alpha": {
                **SIZES,
                "head_dim": 8,
                "attention_bias": True,
                "tie_word_embeddings": True,
                "hidden_act": "gelu",
                **rope("dynamic", alpha=50.0, factor=1.0, mscale=1.0, mscale_all_dim=1.0, beta_fast=32, beta_slow=1),
            },
            "dynamic": {**SIZES, "head_dim": 8, **rope("dynamic", factor=2.0), "max_position_embeddings": 12},
        },
    ),
    "apertus": (
        "ApertusConfig",
        "ApertusForCausalLM",
        {
            "plain": {**SIZES, "max_position_embeddings": 9000},
            "biases": {
                **SIZES,
                "head_dim": 12,
                "attention_bias": True,
                "tie_word_embeddings": True,
                "rms_norm_eps": 0.01,
                **rope("default"),
            },
            "unlearned": {**SIZES, "hidden_act": "relu2", **rope("linear", factor=2.0)},
        },
    ),
}
