"""Falcon-RW, whose ALiBi transformers has right in its fused attention alone."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from lamina.core.exporting import export_model
from lamina.core.importing import import_model
from lamina.core.model import load
from lamina.core.registry import load_plugins

REGISTRY = load_plugins(only=[])


@torch.no_grad()
def test_falcon_rw_is_read_run_and_written(tmp_path: Path) -> None:
    config = transformers.FalconConfig(
        vocab_size=61,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,  # of which every slope is exact in bfloat16
        alibi=True,
        parallel_attn=False,
        multi_query=False,
        bias=True,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    theirs = transformers.FalconForCausalLM(config).eval()
    for parameter in theirs.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "ours", registry=REGISTRY)
    token_ids = torch.randint(61, (2, 24))
    expected = theirs(token_ids, use_cache=False).logits
    limit = 2e-4 * expected.std()
    assert (load(tmp_path / "ours", registry=REGISTRY).decoder(token_ids) - expected).abs().max() < limit
    export_model(tmp_path / "ours", tmp_path / "back", registry=REGISTRY)
    again = transformers.FalconForCausalLM.from_pretrained(tmp_path / "back", attn_implementation="sdpa").eval()
    assert (again(token_ids, use_cache=False).logits - expected).abs().max() < limit
