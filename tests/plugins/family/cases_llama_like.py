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
}
