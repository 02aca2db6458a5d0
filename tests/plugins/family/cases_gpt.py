"""Configs of families that came after GPT-2 and are not built like Llama."""

from __future__ import annotations

from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "max_position_embeddings": 64,
}
GPT2: dict[str, Any] = {"vocab_size": 61, "n_embd": 24, "n_layer": 3, "n_head": 3, "n_positions": 32}
NEO: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_layers": 3,
    "num_heads": 3,
    "max_position_embeddings": 32,
    "window_size": 6,
}
BLOOM: dict[str, Any] = {"vocab_size": 61, "hidden_size": 24, "n_layer": 3, "n_head": 3}
OPT: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "ffn_dim": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "max_position_embeddings": 32,
}
MPT: dict[str, Any] = {"vocab_size": 61, "d_model": 24, "n_layers": 3, "n_heads": 3, "max_seq_len": 32}
FALCON: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "max_position_embeddings": 32,
}
GROUPED = {**SIZES, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}


def rope(kind: str = "default", **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **more}}


# family -> (config class, model class, options of each case by name)
CASES: dict[str, tuple[str, str, dict[str, dict[str, Any]]]] = {
    "gptj": (
        "GPTJConfig",
        "GPTJForCausalLM",
        {
            "plain": {**GPT2, "rotary_dim": 4},
            "tied": {
                **GPT2,
                "n_head": 2,
                "rotary_dim": 10,
                "n_inner": 20,
                "activation_function": "relu",
                "layer_norm_epsilon": 0.01,
                "tie_word_embeddings": True,
            },
        },
    ),
    "gpt_neo": (
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        {
            "plain": {**NEO, "attention_types": [[["global", "local"], 1], [["local"], 1]]},
            "untied": {
                **NEO,
                "attention_types": [[["global"], 3]],
                "intermediate_size": 20,
                "activation_function": "gelu",
                "layer_norm_epsilon": 0.01,
                "tie_word_embeddings": False,
            },
        },
    ),
    "gpt_bigcode": (
        "GPTBigCodeConfig",
        "GPTBigCodeForCausalLM",
        {
            "multi_query": GPT2,
            "multi_head": {
                **GPT2,
                "multi_query": False,
                "scale_attn_weights": False,
                "n_inner": 20,
                "activation_function": "gelu",
                "layer_norm_epsilon": 0.01,
                "tie_word_embeddings": False,
            },
        },
    ),
    "starcoder2": (
        "Starcoder2Config",
        "Starcoder2ForCausalLM",
        {
            "plain": GROUPED,
            "window": {
                **GROUPED,
                "use_bias": False,
                "sliding_window": 6,
                "norm_epsilon": 0.01,
                "hidden_act": "relu",
                "tie_word_embeddings": False,
                "residual_dropout": 0.1,
                **rope("linear", factor=2.0),
            },
        },
    ),
    "phi": (
        "PhiConfig",
        "PhiForCausalLM",
        {
            "plain": SIZES,
            "normed": {
                **GROUPED,
                "qk_layernorm": True,
                "layer_norm_eps": 0.01,
                "hidden_act": "gelu",
                "tie_word_embeddings": True,
                **rope(partial_rotary_factor=0.25),
            },
        },
    ),
    "bloom": (
        "BloomConfig",
        "BloomForCausalLM",
        {
            "plain": BLOOM,
            "untied": {**BLOOM, "n_head": 4, "layer_norm_epsilon": 0.01, "tie_word_embeddings": False},
        },
    ),
    "opt": (
        "OPTConfig",
        "OPTForCausalLM",
        {
            "before": OPT,
            "after": {
                **OPT,
                "do_layer_norm_before": False,
                "activation_function": "gelu",
                "tie_word_embeddings": False,
            },
            "bare": {
                **OPT,
                "enable_bias": False,
                "layer_norm_elementwise_affine": False,
                "_remove_final_layer_norm": True,
            },
        },
    ),
    "mpt": (
        "MptConfig",
        "MptForCausalLM",
        {
            "plain": MPT,
            "clipped": {
                **MPT,
                "n_heads": 4,
                "layer_norm_epsilon": 0.01,
                "attn_config": {"clip_qkv": 0.5, "softmax_scale": 0.7},
                "tie_word_embeddings": False,
            },
        },
    ),
    "falcon": (
        "FalconConfig",
        "FalconForCausalLM",
        {
            "7b": FALCON,
            "40b": {
                **FALCON,
                "num_attention_heads": 4,
                "new_decoder_architecture": True,
                "num_kv_heads": 2,
                "ffn_hidden_size": 20,
                "activation": "relu",
                "layer_norm_epsilon": 0.01,
                **rope("linear", factor=2.0),
            },
            "11b": {
                **FALCON,
                "num_attention_heads": 4,
                "new_decoder_architecture": True,
                "num_kv_heads": 2,
                "num_ln_in_parallel_attn": 1,
            },
            "sequential": {
                **FALCON,
                "parallel_attn": False,
                "multi_query": False,
                "bias": True,
                "tie_word_embeddings": False,
            },
        },
    ),
    "stablelm": (
        "StableLmConfig",
        "StableLmForCausalLM",
        {
            "plain": GROUPED,
            "normed": {
                **GROUPED,
                "use_qkv_bias": True,
                "qk_layernorm": True,
                "use_parallel_residual": True,
                "layer_norm_eps": 0.01,
                "tie_word_embeddings": True,
                **rope(partial_rotary_factor=0.5),
            },
        },
    ),
}
