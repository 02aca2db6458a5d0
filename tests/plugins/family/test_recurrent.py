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
