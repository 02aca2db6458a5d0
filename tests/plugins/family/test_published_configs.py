"""A config.json as it was published, older keys and idle ones included, means what transformers makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from lamina.core.family import IGNORED_KEYS, ConfigKeys
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_data

REGISTRY = load_plugins(only=[])

# family -> (config class, config.json). Depths are cut to a few layers.
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "minimax_m2": (
        "MiniMaxM2Config",
        {
            "attn_type_list": [1, 1, 1, 1],
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 3072,
            "intermediate_size": 1536,
            "layernorm_full_attention_beta": 1.0,
            "layernorm_linear_attention_beta": 1.0,
            "layernorm_mlp_beta": 1.0,
            "max_position_embeddings": 196608,
            "mlp_intermediate_size": 8192,
            "mtp_transformer_layers": 1,
            "num_attention_heads": 48,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 4,
            "num_key_value_heads": 8,
            "num_local_experts": 16,
            "num_mtp_modules": 3,
            "output_router_logits": False,
            "qk_norm_type": "per_layer",
            "rms_norm_eps": 1e-06,
            "rope_theta": 5000000,
            "rotary_dim": 64,
            "router_aux_loss_coef": 0.001,
            "router_jitter_noise": 0.0,
            "scoring_func": "sigmoid",
            "shared_intermediate_size": 0,
            "shared_moe_mode": "sigmoid",
            "sliding_window": None,
            "tie_word_embeddings": False,
            "use_mtp": True,
            "use_qk_norm": True,
            "use_routing_bias": True,
            "vocab_size": 200064,
        },
    ),
    "persimmon": (
        "PersimmonConfig",
        {
            "hidden_act": "relu2",
            "hidden_dropout": 0.0,
            "hidden_size": 4096,
            "intermediate_size": 16384,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 16384,
            "num_attention_heads": 64,
            "num_hidden_layers": 4,
            "num_key_value_heads": 64,
            "partial_rotary_factor": 0.5,
            "qk_layernorm": True,
            "rope_scaling": None,
            "rope_theta": 25000.0,
            "tie_word_embeddings": False,
            "vocab_size": 262144,
        },
    ),
    "diffllama": (
        "DiffLlamaConfig",
        {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "lambda_std_dev": 0.1,
            "max_position_embeddings": 8192,
            "mlp_bias": False,
            "num_attention_heads": 16,
            "num_hidden_layers": 4,
            "num_key_value_heads": 8,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-05,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "rope_theta": 500000.0,
            "tie_word_embeddings": True,
            "vocab_size": 128256,
        },
    ),
    "llama4": (
        "Llama4TextConfig",
        {
            "attention_bias": False,
            "attention_chunk_size": 8192,
            "attn_scale": 0.1,
            "attn_temperature_tuning": True,
            "floor_scale": 8192,
            "for_llm_compressor": False,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 5120,
            "interleave_moe_layer_step": 2,
            "intermediate_size": 8192,
            "intermediate_size_mlp": 16384,
            "max_position_embeddings": 1048576,
            "no_rope_layers": [],
            "num_attention_heads": 40,
            "num_experts_per_tok": 1,
            "num_hidden_layers": 8,
            "num_key_value_heads": 8,
            "num_local_experts": 16,
            "output_router_logits": False,
            "rms_norm_eps": 1e-05,
            "rope_scaling": {
                "factor": 16.0,
                "high_freq_factor": 1.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "rope_theta": 500000.0,
            "router_aux_loss_coef": 0.001,
            "router_jitter_noise": 0.0,
            "use_qk_norm": True,
            "vocab_size": 202048,
        },
    ),
    "lfm2": (
        "Lfm2Config",
        {
            "block_auto_adjust_ff_dim": True,
            "block_dim": 1024,
            "block_ff_dim": 6656,
            "block_ffn_dim_multiplier": 1.0,
            "block_mlp_init_scale": 1.0,
            "block_multiple_of": 256,
            "block_norm_eps": 1e-05,
            "block_out_init_scale": 1.0,
            "block_use_swiglu": True,
            "block_use_xavier_init": True,
            "conv_L_cache": 3,
            "conv_bias": False,
            "conv_dim": 1024,
            "conv_dim_out": 1024,
            "conv_use_xavier_init": True,
            "full_attn_idxs": [2, 5],
            "hidden_size": 1024,
            "max_position_embeddings": 128000,
            "norm_eps": 1e-05,
            "num_attention_heads": 16,
            "num_heads": 16,
            "num_hidden_layers": 6,
            "num_key_value_heads": 8,
            "rope_theta": 1000000.0,
            "tie_embedding": True,
            "use_pos_enc": True,
            "vocab_size": 65536,
        },
    ),
}
DBRX = {
    "attn_config": {"clip_qkv": 8, "kv_n_heads": 8, "model_type": "", "rope_theta": 500000},
    "d_model": 6144,
    "emb_pdrop": 0.0,
    "ffn_config": {
        "ffn_hidden_size": 10752,
        "model_type": "",
        "moe_jitter_eps": 0.01,
        "moe_loss_weight": 0.05,
        "moe_num_experts": 16,
        "moe_top_k": 4,
    },
    "max_seq_len": 32768,
    "n_heads": 48,
    "n_layers": 2,
    "output_router_logits": False,
    "resid_pdrop": 0.0,
    "router_aux_loss_coef": 0.05,
    "tie_word_embeddings": False,
    "vocab_size": 100352,
}


def meaning(family: str, config: dict[str, Any]) -> dict[str, Any]:
    """The spec that a family reads out of a config, in full."""
    component: Any = REGISTRY.get("family", family).component
    keys = ConfigKeys(config)
    data = component().read(keys)
    assert keys.problems == []
    assert keys.left({*IGNORED_KEYS, *component.ignored_keys, *component.training_keys}) == []
    return resolve_data({"lamina": 1, "name": family, **data}, REGISTRY).dump()


@pytest.mark.parametrize("family", sorted(PUBLISHED))
def test_a_published_config_means_what_transformers_makes_of_it(family: str) -> None:
    config_class, published = PUBLISHED[family]
    theirs = getattr(transformers, config_class)(**published).to_dict()
    assert meaning(family, published) == meaning(family, theirs)


def test_dbrx_turns_by_the_base_that_it_was_trained_with() -> None:
    """transformers 5.23 asks for the key and then turns by 10,000."""
    spec = meaning("dbrx", DBRX)
    assert spec["position"]["theta"] == 500_000
    assert spec["blocks"]["block"]["ffn"]["router"]["jitter"] == 0.01
    assert meaning("dbrx", {**DBRX, "rope_theta": 7.0})["position"]["theta"] == 7.0


@pytest.mark.parametrize(("family", "changes", "said"), [
    ("minimax_m2", {"attn_type_list": [1, 0, 1, 1]}, "attn_type_list: all layers have softmax attention, 1"),
    ("minimax_m2", {"scoring_func": "softmax"}, "scoring_func: no component honours 'softmax', only 'sigmoid'"),
    ("persimmon", {"num_key_value_heads": 8}, "num_key_value_heads: 8 is not num_attention_heads"),
    ("diffllama", {"num_attention_heads": 15}, "num_attention_heads: 15 cannot be"),
    ("llama4", {"no_rope_layers": [1, 0]}, "no_rope_layers: has 2 entries for 8 layers"),
    ("llama4", {"layer_types": ["conv"] * 8}, "layer_types: no component honours 'conv'"),
    ("lfm2", {"conv_dim": 512}, "conv_dim: 512 is not hidden_size"),
    ("lfm2", {"use_pos_enc": False}, "use_pos_enc: no component honours False, only True"),
])  # fmt: skip
def test_what_a_family_cannot_say_is_refused_by_name(family: str, changes: dict[str, Any], said: str) -> None:
    component: Any = REGISTRY.get("family", family).component
    keys = ConfigKeys({**PUBLISHED[family][1], **changes})
    component().read(keys)
    assert any(problem.startswith(said) for problem in keys.problems), keys.problems
