"""Multi-head latent attention against transformers' DeepSeek-V2, the paper's formula, and its own cache."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from lamina.core import ComponentConfig, Mask, Part, Position
from lamina.plugins.attention.mla import MLA, MLAConfig
from lamina.plugins.mask.causal import Causal
from lamina.plugins.mask.sliding import Sliding, SlidingConfig
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig
from lamina.plugins.position.alibi import ALiBi, ALiBiConfig
from lamina.plugins.position.none import NoPosition
from lamina.plugins.position.rope import RoPE, RoPEConfig

DIM, HEADS, RANK, NOPE, ROPE, V = 12, 3, 8, 6, 4, 5
CAUSAL = Part("mask", "causal", Causal, ComponentConfig())
RMS = Part("norm", "rms", RMSNorm, RMSNormConfig())


def mla(
    q_lora_rank: int | None = None, *, position: Position | None = None, mask: Mask | None = None, **options: Any
) -> MLA:
    """Built as the core builds it, with random weights."""
    config = MLAConfig(
        n_heads=HEADS,
        kv_lora_rank=RANK,
        q_lora_rank=q_lora_rank,
        qk_nope_head_dim=NOPE,
        qk_rope_head_dim=ROPE,
        v_head_dim=V,
        norm=RMS,
        mask=CAUSAL,
        **options,
    )
    config = config.model_copy(update=config.derive())
    parts: Any = MLA.parts(config)
    norms = {
        name: RMSNorm(RMSNormConfig(), parts[name].sizes["size"]) if parts[name] else None
        for name in ("kv_norm", "q_norm")
    }
    attention = MLA(config, DIM, position or RoPE(RoPEConfig(layout="interleaved"), ROPE), mask or Causal(), **norms)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention


def by_formula(attention: MLA, x: Tensor) -> Tensor:
    """Token by token and head by head, without positions."""
    rows = []
    latents, shared = attention.kv_down(x).split([RANK, ROPE], -1)
    latents = attention.kv_norm(latents)
    w_k, w_v = attention.kv_up.weight.view(HEADS, NOPE + V, RANK).split([NOPE, V], 1)
    queries = attention.q_up(x).unflatten(-1, (HEADS, -1))
    for t in range(x.shape[0]):
        heads = []
        for h in range(HEADS):
            q_nope, q_rope = queries[t, h, :NOPE], queries[t, h, NOPE:]
            scores = [q_nope @ (w_k[h] @ latents[s]) + q_rope @ shared[s] for s in range(t + 1)]
            weights = (torch.stack(scores) * attention.scale).softmax(0)
            heads.append(sum(w * (w_v[h] @ latents[s]) for s, w in enumerate(weights)))
        rows.append(attention.out(torch.cat(heads)))
    return torch.stack(rows)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_mla_follows_the_formula(whole: Any, scale: float | None) -> None:
    attention, x = mla(position=NoPosition(), scale=scale), torch.randn(1, 5, DIM)
    assert attention.scale == scale or (NOPE + ROPE) ** -0.5
    assert_close(whole(attention, x)[0], by_formula(attention, x[0]))


@pytest.mark.parametrize("q_lora_rank", [None, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_mla_equals_deepseek_v2(whole: Any, q_lora_rank: int | None, bias: bool) -> None:
    modeling: Any = pytest.importorskip("transformers.models.deepseek_v2.modeling_deepseek_v2")
    config = modeling.DeepseekV2Config(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        kv_lora_rank=RANK,
        q_lora_rank=q_lora_rank,
        qk_nope_head_dim=NOPE,
        qk_rope_head_dim=ROPE,
        head_dim=ROPE,
        v_head_dim=V,
        attention_bias=bias,
        attn_implementation="eager",
    )
    attention, reference = mla(q_lora_rank, bias=bias), modeling.DeepseekV2Attention(config, 0).eval()
    names = {"kv_down": "kv_a_proj_with_mqa", "kv_norm": "kv_a_layernorm", "kv_up": "kv_b_proj", "out": "o_proj"}
    names |= {"q_down": "q_a_proj", "q_norm": "q_a_layernorm", "q_up": "q_b_proj" if q_lora_rank else "q_proj"}
    reference.load_state_dict(
        {f"{names[name.split('.')[0]]}.{name.split('.')[1]}": value for name, value in attention.state_dict().items()}
    )
    x = torch.randn(2, 5, DIM)
    turns = modeling.DeepseekV2RotaryEmbedding(config)(x, torch.arange(5).unsqueeze(0))
    future = torch.full((5, 5), -torch.inf).triu(1).view(1, 1, 5, 5)
    expected, _ = reference(x, position_embeddings=turns, attention_mask=future)
    assert_close(whole(attention, x), expected)


@pytest.mark.parametrize("q_lora_rank", [None, 9])
@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_mla_equals_deepseek_v3_with_yarns_scale(whole: Any, q_lora_rank: int | None, layout: Any) -> None:
    modeling: Any = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    config = modeling.DeepseekV3Config(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        kv_lora_rank=RANK,
        q_lora_rank=q_lora_rank,
        qk_nope_head_dim=NOPE,
        qk_rope_head_dim=ROPE,
        v_head_dim=V,
        rope_interleave=layout == "interleaved",
        attn_implementation="eager",
        rope_parameters={"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 8.0, "mscale_all_dim": 1.0},
    )
    reference = modeling.DeepseekV3Attention(config, 0).eval()
    factor = 0.1 * math.log(8.0) + 1.0  # of YaRN on queries and keys, as DeepSeek takes it: squared, on the scores
    scale = (NOPE + ROPE) ** -0.5 * factor**2
    attention = mla(q_lora_rank, position=RoPE(RoPEConfig(layout=layout), ROPE), scale=scale)
    names = {"kv_down": "kv_a_proj_with_mqa", "kv_norm": "kv_a_layernorm", "kv_up": "kv_b_proj", "out": "o_proj"}
    names |= {"q_down": "q_a_proj", "q_norm": "q_a_layernorm", "q_up": "q_b_proj" if q_lora_rank else "q_proj"}
    reference.load_state_dict(
        {f"{names[name.split('.')[0]]}.{name.split('.')[1]}": value for name, value in attention.state_dict().items()}
    )
    x = torch.randn(2, 5, DIM)
    rates = 10_000.0 ** (-torch.arange(0, ROPE, 2) / ROPE)
    angles = (torch.arange(5).unsqueeze(1) * rates.repeat(2)).unsqueeze(0)
    future = torch.full((5, 5), -torch.inf).triu(1).view(1, 1, 5, 5)
    expected, _ = reference(x, position_embeddings=(angles.cos(), angles.sin()), attention_mask=future)
    assert_close(whole(attention, x), expected)


@given(
    split=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    window=st.one_of(st.none(), st.integers(1, 5)),
    scheme=st.sampled_from(["rope", "alibi"]),
    q_lora_rank=st.sampled_from([None, 9]),
    documents=st.booleans(),
    data=st.data(),
)
def test_any_split_into_cached_calls_gives_one_full_call(
    whole: Any,
    in_calls: Any,
    split: list[int],
    window: int | None,
    scheme: str,
    q_lora_rank: int | None,
    documents: bool,
    data: st.DataObject,
) -> None:
    """Single tokens take the absorbed form, longer calls the expanded one."""
    mask = Sliding(SlidingConfig(window=window)) if window else Causal()
    position = ALiBi(ALiBiConfig(), HEADS) if scheme == "alibi" else RoPE(RoPEConfig(), ROPE)
    attention, length = mla(q_lora_rank, position=position, mask=mask), sum(split)
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    ids = torch.tensor([data.draw(row), data.draw(row)]) if documents else None
    x = torch.randn(2, length, DIM)
    assert_close(in_calls(attention, x, split, ids), whole(attention, x, ids), atol=1e-4, rtol=1e-4)


def test_a_single_token_expands_no_cached_latent(in_calls: Any) -> None:
    attention, expanded = mla(), []
    attention.kv_up.register_forward_hook(lambda module, inputs, output: expanded.append(output.shape[1]))
    in_calls(attention, torch.randn(1, 5, DIM), [3, 1, 1])
    assert expanded == [3]


def test_a_projection_that_was_replaced_is_called_and_never_read(whole: Any, in_calls: Any) -> None:
    class Doubled(nn.Module):
        """Stands for an adapter or a quantised matrix, whose `weight` is not what it computes."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.weight = inner, inner.weight

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.inner(x)

    attention, x = mla(), torch.randn(1, 5, DIM)
    attention.kv_up = Doubled(attention.kv_up)  # type: ignore[assignment]
    assert_close(in_calls(attention, x, [2, 1, 1, 1]), whole(attention, x))


def test_the_cache_holds_one_latent_and_one_rotated_key_a_token() -> None:
    state = mla().make_state(2, 10, torch.float32, torch.device("cpu"))
    assert sum(tensor.nbytes for tensor in state.tensors()) == 2 * 10 * (RANK + ROPE) * 4


def test_the_position_is_built_for_the_rotated_channels() -> None:
    config = MLAConfig(
        n_heads=3, kv_lora_rank=7, qk_nope_head_dim=5, qk_rope_head_dim=4, v_head_dim=6, norm=RMS, mask=CAUSAL
    )
    assert MLA.position_sizes(config) == {"head_dim": 4, "n_heads": 3}


def test_every_parameter_gets_a_gradient(whole: Any) -> None:
    attention = mla(9, bias=True)
    whole(attention, torch.randn(2, 5, DIM)).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
