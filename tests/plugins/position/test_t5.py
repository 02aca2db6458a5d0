"""T5's relative positions against transformers' T5."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lamina.core import ConfigProblem, Span
from lamina.plugins.position.t5 import T5, T5Config

CPU = torch.device("cpu")


@pytest.mark.parametrize("options", [{}, {"n_buckets": 8, "max_distance": 20}, {"n_buckets": 12, "max_distance": 300}])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_buckets_and_biases_equal_transformers(options: dict[str, int], bidirectional: bool) -> None:
    t5: Any = pytest.importorskip("transformers.models.t5.modeling_t5")
    config = T5Config(bidirectional=bidirectional, **options)
    reference = t5.T5Attention(
        t5.T5Config(
            d_model=12,
            d_kv=4,
            num_heads=3,
            relative_attention_num_buckets=config.n_buckets,
            relative_attention_max_distance=config.max_distance,
            is_decoder=not bidirectional,
        ),
        has_relative_attention_bias=True,
    )
    position = T5(config, n_heads=3)
    with torch.no_grad():
        position.table.weight.copy_(torch.randn(config.n_buckets, 3))
        reference.relative_attention_bias.weight.copy_(position.table.weight)
    whole = Span.run(0, 400, CPU)
    expected = reference.compute_bias(400, 400)
    assert position.buckets(whole, whole).unique().numel() == config.n_buckets - bidirectional
    assert_close(position.bias(torch.zeros(1), whole, whole), expected)
    some = Span(torch.tensor([[399, 3], [17, 200]]))
    for row in range(2):
        assert_close(position.bias(torch.zeros(1), some, whole)[row], expected[0][:, some.positions[row]])


def test_an_attention_with_t5_positions_equals_transformers(decoder_with: Any) -> None:
    t5: Any = pytest.importorskip("transformers.models.t5.modeling_t5")
    decoder = decoder_with({"name": "t5", "n_buckets": 6, "max_distance": 8}, n_kv_heads=4, scale=1.0)
    ours = decoder.layers[0].attention
    config = t5.T5Config(
        d_model=16,
        d_kv=8,
        num_heads=4,
        relative_attention_num_buckets=6,
        relative_attention_max_distance=8,
        is_decoder=True,
        dropout_rate=0.0,
    )
    theirs = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    q, k, v = ours.qkv.weight.split(32)
    theirs.load_state_dict(
        {
            "q.weight": q,
            "k.weight": k,
            "v.weight": v,
            "o.weight": ours.out.weight,
            "relative_attention_bias.weight": ours.position.table.weight,
        }
    )
    x = torch.randn(2, 12, 16)
    future = torch.full((12, 12), -torch.inf).triu(1).view(1, 1, 12, 12)
    context = decoder.context(torch.zeros(2, 12, dtype=torch.int64))
    assert_close(ours(x, context), theirs(x, mask=future)[0], atol=1e-4, rtol=1e-4)


def test_t5_keeps_the_invariants(check_scheme: Any) -> None:
    check_scheme({"name": "t5", "n_buckets": 6, "max_distance": 8})


@pytest.mark.parametrize("shared", [True, False])
def test_layers_share_a_table_unless_told_otherwise(decoder_with: Any, shared: bool) -> None:
    decoder = decoder_with({"name": "t5", "shared": shared})
    first, second = (layer.attention.position for layer in decoder.layers)
    assert (first is second) == shared
    tables = [name for name in decoder.tensors() if "position" in name]
    assert len(tables) == (1 if shared else 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_buckets": 6, "bidirectional": True}, "must be a multiple of 4"),
        ({"n_buckets": 32, "max_distance": 16}, r"max_distance \(16\) must exceed the 16 exact distances"),
    ],
)
def test_buckets_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigProblem, match=message):
        T5Config(**options).derive()
