"""Differential attention against transformers' DiffLlama, the paper's formula, and its own cache."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from lamina.core import ComponentConfig, ConfigProblem, Mask, Part, Position
from lamina.plugins.attention.differential import Differential, DifferentialConfig
from lamina.plugins.mask.causal import Causal
from lamina.plugins.mask.chunked import Chunked, ChunkedConfig
from lamina.plugins.mask.sliding import Sliding, SlidingConfig
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig
from lamina.plugins.position.alibi import ALiBi, ALiBiConfig
from lamina.plugins.position.none import NoPosition
from lamina.plugins.position.rope import RoPE, RoPEConfig

DIM = 16
CAUSAL = Part("mask", "causal", Causal, ComponentConfig())
RMS = Part("norm", "rms", RMSNorm, RMSNormConfig())


def differential(
    n_heads: int = 2,
    n_kv_heads: int | None = None,
    *,
    layer: int = 0,
    position: Position | None = None,
    mask: Mask | None = None,
    qk_norm: bool = False,
    affine: bool = True,
    **options: Any,
) -> Differential:
    """Built as the core builds it, with random weights."""
    norm_config = RMSNormConfig(eps=1e-5, affine=affine)
    config = DifferentialConfig(
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        mask=CAUSAL,
        norm=Part("norm", "rms", RMSNorm, norm_config),
        qk_norm=RMS if qk_norm else None,
        **options,
    )
    config = config.model_copy(update=config.derive(dim=DIM))
    parts: Any = {name: part for name, part in Differential.parts(config).items() if part and name != "mask"}
    norms: Any = {
        name: RMSNorm(norm_config if name == "norm" else RMSNormConfig(), part.sizes["size"])
        for name, part in parts.items()
    }
    attention = Differential(config, DIM, layer, position or NoPosition(), mask or Causal(), **norms)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("n_kv_heads", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_it_equals_diffllama(whole: Any, layer: int, n_kv_heads: int, bias: bool) -> None:
    """Which counts every query and key as a head, and keeps the halves of values apart."""
    modeling: Any = pytest.importorskip("transformers.models.diffllama.modeling_diffllama")
    config = modeling.DiffLlamaConfig(
        hidden_size=DIM,
        num_attention_heads=4,
        num_key_value_heads=2 * n_kv_heads,
        num_hidden_layers=4,
        attention_bias=bias,
        rms_norm_eps=1e-5,
        attn_implementation="eager",
    )
    reference = modeling.DiffLlamaAttention(config, layer).eval()
    attention = differential(
        2, n_kv_heads, layer=layer, bias=bias, affine=False, position=RoPE(RoPEConfig(), 4), head_dim=4
    )
    state = {name: value for name, value in attention.state_dict().items() if name.startswith("lambda")}
    for name in ["weight", "bias"] if bias else ["weight"]:
        q1, q2, k1, k2, v = getattr(attention.qkv, name).split(attention.split)
        halves = v.unflatten(0, (n_kv_heads, 2, 4)).transpose(0, 1).flatten(0, 2)
        state |= {f"q_proj.{name}": torch.cat([q1, q2]), f"k_proj.{name}": torch.cat([k1, k2])}
        state |= {f"v_proj.{name}": halves, f"o_proj.{name}": getattr(attention.out, name)}
    reference.load_state_dict(state)
    x = torch.randn(2, 5, DIM)
    rope = modeling.DiffLlamaRotaryEmbedding(config)(x, torch.arange(5).unsqueeze(0))
    future = torch.full((5, 5), -torch.inf).triu(1).view(1, 1, 5, 5)
    expected, _ = reference(x, position_embeddings=rope, attention_mask=future)
    assert_close(whole(attention, x), expected)


def by_formula(attention: Differential, x: Tensor, layer: int) -> Tensor:
    """Head by head; a map is a softmax over the past."""
    length, wide = x.shape[0], 2 * attention.head_dim
    start = 0.8 - 0.6 * math.exp(-0.3 * layer)
    lam = (attention.lambda_q1 @ attention.lambda_k1).exp() - (attention.lambda_q2 @ attention.lambda_k2).exp() + start
    groups = attention.n_heads // attention.n_kv_heads
    q1, q2, k1, k2, v = attention.qkv(x).split(attention.split, -1)
    heads = []
    for h in range(attention.n_heads):
        maps = []
        for q, k in ((q1, k1), (q2, k2)):
            q = q.unflatten(-1, (attention.n_heads, -1))[:, h]
            k = k.unflatten(-1, (attention.n_kv_heads, -1))[:, h // groups]
            scores = q @ k.T * attention.scale
            maps.append(scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1))
        out = (maps[0] - lam * maps[1]) @ v.unflatten(-1, (attention.n_kv_heads, wide))[:, h // groups]
        out = out / (out.square().mean(-1, keepdim=True) + 1e-5).sqrt() * attention.norm.weight
        heads.append(out * (1 - start))
    return attention.out(torch.cat(heads, -1))


@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (4, 1)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_it_follows_the_formula(whole: Any, heads: tuple[int, int], scale: float | None) -> None:
    # In float64: where the two maps all but cancel, the norm that follows enlarges what rounding left.
    attention, x = differential(*heads, layer=2, scale=scale).double(), torch.randn(1, 6, DIM, dtype=torch.float64)
    assert_close(whole(attention, x)[0], by_formula(attention, x[0], 2))


def test_the_weight_of_the_second_map_starts_by_depth_or_as_given() -> None:
    first = differential(layer=0)
    first.init_weights(0.02)
    assert first.lambda_init == pytest.approx(0.2)
    drawn = torch.cat([first.lambda_q1, first.lambda_k1, first.lambda_q2, first.lambda_k2])  # N(0, 0.1²)
    assert 0.05 < drawn.std() < 0.2
    assert differential(layer=5, lambda_init=0.7).lambda_init == 0.7


@given(
    split=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    n_kv_heads=st.sampled_from([1, 2]),
    mask=st.sampled_from([Causal(), Sliding(SlidingConfig(window=3)), Chunked(ChunkedConfig(size=3))]),
    scheme=st.sampled_from(["none", "rope", "alibi"]),
    qk_norm=st.booleans(),
    documents=st.booleans(),
    data=st.data(),
)
def test_any_split_into_cached_calls_gives_one_full_call(
    whole: Any,
    in_calls: Any,
    split: list[int],
    n_kv_heads: int,
    mask: Mask,
    scheme: str,
    qk_norm: bool,
    documents: bool,
    data: st.DataObject,
) -> None:
    position = {"none": NoPosition(), "rope": RoPE(RoPEConfig(), 4), "alibi": ALiBi(ALiBiConfig(), 2)}[scheme]
    attention = differential(2, n_kv_heads, position=position, mask=mask, qk_norm=qk_norm, head_dim=4)
    length = sum(split)
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    ids = torch.tensor([data.draw(row), data.draw(row)]) if documents else None
    x = torch.randn(2, length, DIM)
    assert_close(in_calls(attention, x, split, ids), whole(attention, x, ids), atol=1e-4, rtol=1e-4)


def test_the_cache_holds_two_keys_and_one_wide_value_a_head() -> None:
    state = differential(4, 2, head_dim=3).make_state(2, 10, torch.float32, torch.device("cpu"))
    assert sum(tensor.nbytes for tensor in state.tensors()) == 2 * 10 * 2 * (3 + 3 + 6) * 4


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigProblem, match=r"n_heads \(4\) must be a multiple of n_kv_heads \(3\)"):
        DifferentialConfig(n_heads=4, n_kv_heads=3).derive(dim=DIM)
    with pytest.raises(ConfigProblem, match=r"dim \(12\) must be a multiple of 2 · n_heads \(8\)") as problem:
        DifferentialConfig(n_heads=4).derive(dim=12)
    assert problem.value.field == "n_heads"


def test_every_parameter_gets_a_gradient(whole: Any) -> None:
    attention = differential(4, 2, qk_norm=True, bias=True, position=RoPE(RoPEConfig(), 4), head_dim=4)
    whole(attention, torch.randn(2, 5, DIM)).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
