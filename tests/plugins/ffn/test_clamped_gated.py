"""The clamped gated ffn against GPT-OSS and its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import Context, OutLinear
from lamina.plugins.ffn.clamped_gated import ClampedGated, ClampedGatedConfig


def clamped(**options: Any) -> ClampedGated:
    ffn = ClampedGated(ClampedGatedConfig(hidden_dim=10, **options), 6)
    for parameter in ffn.parameters():
        nn.init.normal_(parameter)
    return ffn


def test_clamped_gated_equals_gpt_oss(context: Context) -> None:
    """Its one expert, whose gate and up columns lie interleaved."""
    modeling = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss")
    config = modeling.GptOssConfig(hidden_size=6, intermediate_size=10, num_local_experts=1)
    config.swiglu_limit = 2.0
    ffn, theirs, x = clamped(limit=2.0), modeling.GptOssExperts(config), torch.randn(5, 6)
    interleaved = [row for pair in zip(range(10), range(10, 20), strict=True) for row in pair]
    with torch.no_grad():
        theirs.gate_up_proj.copy_(ffn.gate_up.weight[interleaved].T.unsqueeze(0))
        theirs.gate_up_proj_bias.copy_(ffn.gate_up.bias[interleaved].unsqueeze(0))
        theirs.down_proj.copy_(ffn.down.weight.T.unsqueeze(0))
        theirs.down_proj_bias.copy_(ffn.down.bias.unsqueeze(0))
    expected = theirs._apply_gate(x @ theirs.gate_up_proj[0] + theirs.gate_up_proj_bias[0])
    assert (ffn.gate_up(x).abs() > 2.0).any()
    assert_close(ffn(x, context), expected @ theirs.down_proj[0] + theirs.down_proj_bias[0])


def test_without_offset_and_with_alpha_one_it_is_a_clamped_swiglu(context: Context) -> None:
    ffn, x = clamped(limit=1.5, alpha=1.0, offset=0.0, bias=False), torch.randn(2, 3, 6)
    gate, up = (x @ ffn.gate_up.weight.T).split(10, -1)
    inner = F.silu(torch.minimum(gate, torch.tensor(1.5))) * torch.maximum(
        torch.minimum(up, torch.tensor(1.5)), torch.tensor(-1.5)
    )
    assert_close(ffn(x, context), inner @ ffn.down.weight.T)


def test_biases_and_width_are_as_told() -> None:
    assert ClampedGatedConfig(bias=False).derive(dim=6) == {"hidden_dim": 16, "out_bias": False}
    assert ClampedGatedConfig(hidden_dim=7, out_bias=False).derive(dim=6) == {}
    ffn = clamped(out_bias=False)
    assert (ffn.gate_up.bias is None, ffn.down.bias is None) == (False, True)
    assert isinstance(ffn.down, OutLinear)
