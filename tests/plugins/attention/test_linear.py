"""Linear attention against sums over the past written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import ConfigProblem, Position
from lamina.plugins.attention.linear import LinearAttention, LinearAttentionConfig
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig
from lamina.plugins.position.none import NoPosition
from lamina.plugins.position.rope import RoPE, RoPEConfig

DIM, HEADS, WIDTH, LENGTH = 12, 3, 4, 7
MAPS = {
    "elu1": lambda x: torch.where(x > 0, x + 1, x.exp()),
    "relu": lambda x: x.clamp(min=0),
    "softmax": lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
    "identity": lambda x: x,
}


def linear(position: Position | None = None, norm: RMSNorm | None = None, **options: Any) -> LinearAttention:
    config = LinearAttentionConfig(n_heads=HEADS, **options)
    config = config.model_copy(update=config.derive(dim=DIM))
    attention = LinearAttention(config, DIM, position or NoPosition(), norm)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention.double()


def heads(attention: LinearAttention, x: Tensor) -> list[Tensor]:
    """q, k and v, each (H, T, Dh)"""
    parts = F.linear(x, attention.qkv.weight, attention.qkv.bias).chunk(3, -1)
    return [part.unflatten(-1, (HEADS, WIDTH)).transpose(0, 1) for part in parts]


@pytest.mark.parametrize("feature_map", MAPS)
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_each_token_reads_the_weighted_sum_of_the_values_so_far(
    whole: Any, feature_map: str, normalise: bool, bias: bool
) -> None:
    if feature_map == "identity" and normalise:
        return
    attention = linear(feature_map=feature_map, normalise=normalise, bias=bias, eps=0.125)
    x = torch.randn(1, LENGTH, DIM, dtype=torch.float64)
    q, k, v = heads(attention, x[0])
    rows = []
    for t in range(LENGTH):
        row = []
        for h in range(HEADS):
            weights = [MAPS[feature_map](q[h, t]) @ MAPS[feature_map](k[h, s]) for s in range(t + 1)]
            total = sum(weight * v[h, s] for s, weight in enumerate(weights))
            row.append(total / (sum(weights) + 0.125) if normalise else total)
        rows.append(torch.cat(row))
    assert_close(whole(attention, x)[0], attention.out(torch.stack(rows)))


def test_a_turning_position_acts_on_features_above_the_line_and_not_below(whole: Any) -> None:
    rope = RoPE(RoPEConfig(), WIDTH)
    attention, x = linear(rope), torch.randn(1, LENGTH, DIM, dtype=torch.float64)
    q, k, v = heads(attention, x[0])
    q, k = F.elu(q) + 1, F.elu(k) + 1
    angles = torch.arange(LENGTH).unsqueeze(1) * torch.tensor([1.0, 0.01], dtype=torch.float64)

    def turn(f: Tensor) -> Tensor:
        turned = torch.complex(f[..., :2], f[..., 2:]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([turned.real, turned.imag], -1)

    above = ((turn(q) @ turn(k).mT).tril() @ v) / ((q @ k.mT).tril().sum(-1, keepdim=True) + attention.eps)
    assert_close(whole(attention, x)[0], attention.out(above.transpose(0, 1).flatten(1)), atol=1e-4, rtol=1e-4)


def test_a_norm_reads_each_heads_output(whole: Any) -> None:
    norm = RMSNorm(RMSNormConfig(), WIDTH)
    attention = linear(norm=norm, normalise=False)
    nn.init.normal_(norm.weight)
    x = torch.randn(1, LENGTH, DIM, dtype=torch.float64)
    q, k, v = heads(attention, x[0])
    y = ((F.elu(q) + 1) @ (F.elu(k) + 1).mT).tril() @ v
    assert_close(whole(attention, x)[0], attention.out(norm(y).transpose(0, 1).flatten(1)))


def test_features_of_any_sign_are_not_normalised() -> None:
    with pytest.raises(ConfigProblem, match="sum to zero") as problem:
        LinearAttentionConfig(n_heads=2, feature_map="identity").derive(dim=4)
    assert problem.value.field == "normalise"


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigProblem, match=r"dim \(12\) must be a multiple of n_heads \(5\)"):
        LinearAttentionConfig(n_heads=5).derive(dim=12)
    assert LinearAttentionConfig(n_heads=5, head_dim=3).derive(dim=12) == {}
