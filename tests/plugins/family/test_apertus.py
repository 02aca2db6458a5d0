"""Apertus keeps two constants of its activation beside what is learned of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lamina.core.errors import ModelError
from lamina.core.exporting import export_model
from lamina.core.importing import import_model
from lamina.core.registry import load_plugins

REGISTRY = load_plugins(only=[])


def _checkpoint(folder: Path, **constants: float | None) -> Path:
    """One whose constants have these values, or are not there."""
    sizes: dict[str, Any] = {
        "vocab_size": 11,
        "hidden_size": 16,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    transformers.ApertusForCausalLM(transformers.ApertusConfig(**sizes, pad_token_id=0)).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name, value in constants.items():
        full = f"model.layers.0.mlp.act_fn.{name}"
        if value is None:
            del tensors[full]
        else:
            tensors[full] = torch.tensor(value)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_checkpoint_without_the_constants_is_read_and_written_with_them(tmp_path: Path) -> None:
    import_model(_checkpoint(tmp_path / "theirs", beta=None, eps=None), tmp_path / "ours", registry=REGISTRY)
    export_model(tmp_path / "ours", tmp_path / "back", registry=REGISTRY)
    written = load_file(tmp_path / "back/model.safetensors")
    assert written["model.layers.0.mlp.act_fn.beta"] == 0.5
    assert written["model.layers.0.mlp.act_fn.eps"] == torch.tensor(-1e-6)


def test_another_slope_than_the_activation_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a tensor holds 0\.25, and no component honours another than 0\.5"):
        import_model(_checkpoint(tmp_path / "theirs", beta=0.25), tmp_path / "ours", registry=REGISTRY)
    assert not (tmp_path / "ours").exists()
