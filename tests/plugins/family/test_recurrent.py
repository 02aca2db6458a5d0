"""Checkpoints of recurrent models as their first releases had them, and what differs from the reference on purpose."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lamina.core.family import ConfigKeys
from lamina.core.importing import import_model
from lamina.core.model import load
from lamina.core.registry import load_plugins

REGISTRY = load_plugins(only=[])


def read(family: str, **keys: Any) -> tuple[dict[str, Any], list[str]]:
    """The spec that a config means, and what is wrong with it."""
    component: Any = REGISTRY.get("family", family).component
    config = ConfigKeys(keys)
    return component().read(config), config.problems


@torch.no_grad()
def test_the_first_releases_of_mamba_are_read(tmp_path: Path) -> None:
    config = transformers.MambaConfig(vocab_size=31, hidden_size=16, num_hidden_layers=2)
    model = transformers.MambaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "theirs")
    said = json.loads((tmp_path / "theirs/config.json").read_text())
    said |= {"d_model": said.pop("hidden_size"), "n_layer": said.pop("num_hidden_layers"), "ssm_cfg": {}}
    said |= {"d_inner": 32, "rms_norm": True, "fused_add_norm": True, "pad_vocab_size_multiple": 8}
    (tmp_path / "theirs/config.json").write_text(json.dumps(said))
    tensors = load_file(tmp_path / "theirs/model.safetensors")
    tensors["backbone.embedding.weight"] = tensors.pop("backbone.embeddings.weight")
    save_file(tensors, tmp_path / "theirs/model.safetensors")
    import_model(tmp_path / "theirs", tmp_path / "ours", registry=REGISTRY)
    token_ids = torch.randint(31, (1, 9))
    expected = model(token_ids, use_cache=False).logits
    ours = load(tmp_path / "ours", registry=REGISTRY).decoder(token_ids)
    assert (ours - expected).abs().max() < 2e-4 * expected.std()


@pytest.mark.parametrize("infinity", [math.inf, {"__float__": "Infinity"}, "Infinity"])
def test_steps_without_a_largest_one_are_spelled_in_several_ways(infinity: Any) -> None:
    sizes = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 8, "n_groups": 1}
    data, problems = read("mamba2", **sizes, time_step_limit=[0.01, infinity])
    attention = data["blocks"]["block"]["attention"]
    assert problems == []
    assert attention["dt_min"] == 0.01
    assert "dt_max" not in attention
    _, problems = read("mamba2", **sizes, time_step_limit=[0.01, "many"])
    assert problems == ["time_step_limit: 'many' is no number"]


GRANITE = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 3, "max_position_embeddings": 32}
GRANITE |= {"num_attention_heads": 4, "mamba_n_heads": 4, "num_local_experts": 0}


def test_kinds_of_layers_have_older_names() -> None:
    kinds = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
    newer = read("granitemoehybrid", **GRANITE, **kinds)
    assert newer[1] == []
    assert newer[0]["layers"]["pattern"] == ["mamba", "attention", "mamba"]
    older = ["mamba", "attention", "mamba"]
    assert read("granitemoehybrid", **GRANITE, layer_types=older) == newer
    assert read("granitemoehybrid", **GRANITE, layers_block_type=older, position_embedding_type="nope") == newer


@pytest.mark.parametrize(
    ("family", "keys", "said"),
    [
        ("granitemoehybrid", {**GRANITE, "position_embedding_type": "alibi"}, "position_embedding_type"),
        ("granitemoehybrid", {**GRANITE, "layer_types": ["mamba", "conv", "mamba"]}, "layer_types"),
        ("jamba", {"mamba_inner_layernorms": False}, "mamba_inner_layernorms"),
        ("jamba", {"attn_layer_period": 0}, "attn_layer_period"),
        ("bamba", {"partial_rotary_factor": 0.25}, "partial_rotary_factor"),
        ("recurrent_gemma", {"embeddings_scale_by_sqrt_dim": False}, "embeddings_scale_by_sqrt_dim"),
        ("recurrent_gemma", {"block_types": ["recurrent", "mamba"]}, "block_types"),
    ],
)
def test_what_transformers_would_pass_over_is_refused(family: str, keys: dict[str, Any], said: str) -> None:
    sizes = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 3, "intermediate_size": 20}
    _, problems = read(family, **{**sizes, **keys})
    assert [problem.split(":")[0] for problem in problems] == [said]


def test_embeddings_of_recurrent_gemma_are_scaled_as_in_training() -> None:
    scales = [
        read("recurrent_gemma", vocab_size=31, hidden_size=dim, num_hidden_layers=3)[0]["embedding"]["scale"]
        for dim in (2560, 4096)
    ]
    assert scales == [float(torch.tensor(2560.0).sqrt().bfloat16()), "sqrt_dim"]
