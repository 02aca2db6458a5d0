"""Configs of families built like Llama."""

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
UNTIED = {"tie_word_embeddings": False}


def rope(kind: str = "default", theta: float = 500.0, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LONG = {
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 8,
}
NEOX = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}
GPT2 = {"vocab_size": 61, "n_embd": 24, "n_layer": 3, "n_head": 3, "n_positions": 32}
# family -> (config class, model class, options of each case by name)
CASES: dict[str, tuple[str, str, dict[str, dict[str, Any]]]] = {
    "llama": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {
            "plain": SIZES,
            "biases": {**SIZES, "attention_bias": True, "mlp_bias": True, "head_dim": 12, "hidden_act": "gelu"},
            "tied": {**SIZES, "tie_word_embeddings": True, "num_key_value_heads": 4, "rms_norm_eps": 0.01},
            "linear": {**SIZES, **rope("linear", factor=2.0)},
            "dynamic": {**SIZES, **rope("dynamic", factor=2.0), "max_position_embeddings": 12},
            "llama3": {**SIZES, **rope("llama3", **LLAMA3)},
            "yarn": {**SIZES, **rope("yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=8.0)},
            "yarn_mscale": {
                **SIZES,
                **rope("yarn", factor=4.0, original_max_position_embeddings=16, mscale=0.7, mscale_all_dim=1.2),
            },
            "longrope": {**SIZES, **rope("longrope", **LONG)},
        },
    ),
    "mistral": (
        "MistralConfig",
        "MistralForCausalLM",
        {
            "window": {**SIZES, "sliding_window": 6},
            "full": {**SIZES, "sliding_window": None, "head_dim": 12, "tie_word_embeddings": True},
        },
    ),
    "olmo2": (
        "Olmo2Config",
        "Olmo2ForCausalLM",
        {"plain": SIZES, "biases": {**SIZES, "attention_bias": True, "rms_norm_eps": 0.01, **rope(theta=50.0)}},
    ),
    "mixtral": (
        "MixtralConfig",
        "MixtralForCausalLM",
        {
            "plain": {**SIZES, "num_local_experts": 4, "sliding_window": None},
            "window": {**SIZES, "num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 6, "head_dim": 12},
        },
    ),
    "qwen2": (
        "Qwen2Config",
        "Qwen2ForCausalLM",
        {
            "plain": {**SIZES, "tie_word_embeddings": True},
            "upper": {**SIZES, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
        },
    ),
    "qwen3": (
        "Qwen3Config",
        "Qwen3ForCausalLM",
        {
            "plain": {**SIZES, "head_dim": 12},
            "window": {
                **SIZES,
                "attention_bias": True,
                "rms_norm_eps": 0.01,
                "use_sliding_window": True,
                "sliding_window": 6,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                **rope("yarn", factor=2.0, original_max_position_embeddings=32),
            },
        },
    ),
    "gemma": (
        "GemmaConfig",
        "GemmaForCausalLM",
        {"plain": {**SIZES, "head_dim": 12}, "untied": {**SIZES, "head_dim": 8, **UNTIED, "attention_bias": True}},
    ),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {
            "plain": {**SIZES, "head_dim": 12, "sliding_window": 6, "query_pre_attn_scalar": 7, **UNTIED},
            "uncapped": {
                **SIZES,
                "head_dim": 8,
                "sliding_window": 5,
                "attn_logit_softcapping": None,
                "final_logit_softcapping": 5.0,
                "layer_types": ["full_attention", "full_attention", "sliding_attention"],
            },
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            "plain": {**SIZES, "num_hidden_layers": 7, "head_dim": 12, "sliding_window": 6, **UNTIED},
            "scaled": {
                **SIZES,
                "head_dim": 8,
                "sliding_window": 5,
                "query_pre_attn_scalar": 10,
                "final_logit_softcapping": 9.0,
                "layer_types": ["full_attention", "sliding_attention", "full_attention"],
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 900.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                },
            },
        },
    ),
    "phi3": (
        "Phi3Config",
        "Phi3ForCausalLM",
        {
            "plain": {**SIZES, "sliding_window": 6, "resid_pdrop": 0.1, "pad_token_id": 0},
            "longrope": {
                **SIZES,
                "pad_token_id": 0,
                "max_position_embeddings": 32,
                "original_max_position_embeddings": 8,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 500.0,
                    "short_factor": [1.0, 1.1, 1.2, 1.3],
                    "long_factor": [1.0, 2.0, 3.0, 4.0],
                },
            },
            "partial": {**SIZES, "pad_token_id": 0, "tie_word_embeddings": True, **rope(partial_rotary_factor=0.5)},
        },
    ),
    "gpt_neox": (
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        {
            "parallel": {**NEOX, **rope(partial_rotary_factor=0.25)},
            "sequential": {
                **NEOX,
                "use_parallel_residual": False,
                "attention_bias": False,
                "hidden_act": "gelu_new",
                "tie_word_embeddings": True,
                "layer_norm_eps": 0.01,
                **rope(partial_rotary_factor=1.0),
            },
        },
    ),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            "plain": {**GPT2, "tie_word_embeddings": False},
            "tied": {**GPT2, "n_inner": 20, "activation_function": "relu", "scale_attn_weights": False},
            "by_layer": {**GPT2, "scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 0.01},
        },
    ),
}
