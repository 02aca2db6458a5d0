"""Hybrids as the hub holds them: older keys, keys and tensors that say nothing, lists counted from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lamina.core.family import IGNORED_KEYS, ConfigKeys
from lamina.core.importing import import_model
from lamina.core.registry import load_plugins

REGISTRY = load_plugins(only=[])
TINY = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 5, "max_position_embeddings": 64}


def read(family: str, config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The spec that a config means, and what is wrong with it."""
    component: Any = REGISTRY.get("family", family).component
    keys = ConfigKeys({**TINY, **config})
    data = component().read(keys)
    return data, keys.problems + keys.left({*IGNORED_KEYS, *component.ignored_keys, *component.training_keys})


SPELLINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "qwen3_next": (
        {"rope_theta": 5e5, "partial_rotary_factor": 0.5, "rope_scaling": None, "full_attention_interval": 3},
        {
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 0.5},
            "layer_types": ["linear_attention", "linear_attention", "full_attention"] + ["linear_attention"] * 2,
        },
    ),
    "qwen3_5": (
        {
            "attn_output_gate": True,
            "output_gate_type": "swish",
            "full_attention_interval": 4,
            "mamba_ssm_dtype": "float32",
            "mtp_num_hidden_layers": 1,
            "mtp_use_dedicated_embeddings": False,
            "mlp_only_layers": [],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e5,
                "partial_rotary_factor": 0.25,
                "mrope_section": [1, 1, 0],
                "mrope_interleaved": True,
            },
        },
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    ),
    "kimi_linear": (
        {
            "linear_attn_config": {
                "kda_layers": [1, 2, 4, 5],
                "full_attn_layers": [3],
                "head_dim": 6,
                "num_heads": 3,
                "short_conv_kernel_size": 5,
            },
            "first_k_dense_replace": 2,
            "moe_layer_freq": 1,
            "moe_router_activation_func": "sigmoid",
            "mla_use_nope": True,
            "head_dim": 72,
            "num_nextn_predict_layers": 0,
            "rope_theta": 10_000.0,
            "rope_scaling": None,
            "use_grouped_topk": True,
        },
        {
            "layer_types": ["linear_attention"] * 2 + ["full_attention"] + ["linear_attention"] * 2,
            "mlp_layer_types": ["dense"] * 2 + ["sparse"] * 3,
            "linear_head_dim": 6,
            "linear_num_heads": 3,
            "linear_conv_kernel_dim": 5,
        },
    ),
}


@pytest.mark.parametrize("family", SPELLINGS)
def test_the_hubs_spelling_is_the_same_model(family: str) -> None:
    hub, here = (read(family, config) for config in SPELLINGS[family])
    assert hub == here
    assert hub[1] == []
    assert hub != read(family, {})


def test_layers_that_predict_further_tokens_are_left_out(tmp_path: Path) -> None:
    sizes = {"linear_num_key_heads": 1, "linear_num_value_heads": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.Qwen3_5TextConfig(**TINY, **sizes, intermediate_size=8, head_dim=8)
    transformers.Qwen3_5ForCausalLM(config).save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs/model.safetensors"
    save_file({**load_file(file), "mtp.fc.weight": torch.ones(3)}, file, metadata={"format": "pt"})
    done = import_model(tmp_path / "theirs", tmp_path / "ours", registry=REGISTRY)
    assert (done.family, done.notes) == ("qwen3_5", [])


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("qwen3_5", {"attn_output_gate": False}, "attn_output_gate: no component honours False"),
        ("qwen3_5", {"layer_types": ["linear_attention"] * 3}, "layer_types: not a list of 5"),
        ("qwen3_next", {"layer_types": ["sliding_attention"] * 5}, "layer_types: no component honours 'sliding"),
        ("kimi_linear", {"mla_use_nope": False}, "mla_use_nope: no component honours False"),
        ("kimi_linear", {"num_key_value_heads": 2}, "num_key_value_heads: heads are all read from one latent"),
        ("kimi_linear", {"mlp_layer_types": ["thick"] * 5}, "mlp_layer_types: no component honours 'thick'"),
        ("kimi_linear", {"linear_attn_config": {"gate_lower_bound": -5.0}}, "linear_attn_config.gate_lower_bound: no"),
        ("kimi_linear", {"linear_attn_config": [1]}, "linear_attn_config: [1] is no mapping"),
        (
            "kimi_linear",
            {"linear_attn_config": {"kda_layers": [0, 1, 2, 3], "full_attn_layers": [4]}, "layer_types": None},
            "its lists do not name each of 5 layers once",
        ),
    ],
)
def test_what_no_component_honours_is_named(family: str, change: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in read(family, change)[1])
