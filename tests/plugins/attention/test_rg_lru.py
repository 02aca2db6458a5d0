"""Griffin's recurrent block against transformers' RecurrentGemma, a loop over tokens, and its own cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from lamina.core import ConfigProblem
from lamina.plugins.activation.gelu_tanh import GELUTanh
from lamina.plugins.attention.rg_lru import RGLRU, RGLRUConfig

DIM = 6


def rg_lru(n_heads: int = 2, width: int = 8, bias: bool = True, conv_width: int = 4) -> RGLRU:
    config = RGLRUConfig(width=width, n_heads=n_heads, bias=bias, conv_width=conv_width)
    mixer = RGLRU(config, DIM, GELUTanh())
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.5)
    nn.init.normal_(mixer.decay, mean=-3)
    return mixer


def test_rg_lru_equals_recurrent_gemma(whole: Any) -> None:
    modeling = pytest.importorskip("transformers.models.recurrent_gemma.modeling_recurrent_gemma")
    config = modeling.RecurrentGemmaConfig(hidden_size=DIM, lru_width=8, num_attention_heads=2, conv1d_width=4)
    mixer, theirs = rg_lru(), modeling.RecurrentGemmaRecurrentBlock(config, 0)
    (y, x), (y_bias, x_bias) = mixer.gate_in.weight.chunk(2), mixer.gate_in.bias.chunk(2)
    biases = mixer.gate_bias.view(2, 2, 4)
    theirs.load_state_dict(
        {
            "linear_y.weight": y,
            "linear_x.weight": x,
            "linear_y.bias": y_bias,
            "linear_x.bias": x_bias,
            "linear_out.weight": mixer.out.weight,
            "linear_out.bias": mixer.out.bias,
            "conv_1d.weight": mixer.conv_weight,
            "conv_1d.bias": mixer.conv_bias,
            "rg_lru.recurrent_param": mixer.decay,
            "rg_lru.input_gate_weight": mixer.gate_weight[0],
            "rg_lru.input_gate_bias": biases[0],
            "rg_lru.recurrent_gate_weight": mixer.gate_weight[1],
            "rg_lru.recurrent_gate_bias": biases[1],
        }
    )
    x = torch.randn(2, 9, DIM)
    expected, _ = theirs(x, torch.arange(9).expand(2, -1), None, use_cache=False)
    assert_close(whole(mixer, x), expected, atol=1e-5, rtol=1e-4)


@settings(max_examples=40)
@given(
    split=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    conv_width=st.integers(1, 4),
    documents=st.booleans(),
    data=st.data(),
)
def test_any_split_into_cached_calls_gives_one_full_call(
    whole: Any, in_calls: Any, split: list[int], conv_width: int, documents: bool, data: st.DataObject
) -> None:
    mixer, length = rg_lru(conv_width=conv_width), sum(split)
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    ids = torch.tensor([data.draw(row), data.draw(row)]) if documents else None
    x = torch.randn(2, length, DIM)
    assert_close(in_calls(mixer, x, split, ids), whole(mixer, x, ids), atol=1e-5, rtol=1e-4)


def test_a_document_is_blind_to_the_others(whole: Any) -> None:
    mixer, x = rg_lru(), torch.randn(1, 7, DIM)
    packed = whole(mixer, x, torch.tensor([[0, 0, 0, 1, 1, 1, 1]]))
    assert_close(packed[:, :3], whole(mixer, x[:, :3]))
    assert_close(packed[:, 3:], whole(mixer, x[:, 3:]))


def test_a_token_reads_all_tokens_before_it(whole: Any) -> None:
    mixer, x = rg_lru(), torch.randn(1, 12, DIM, requires_grad=True)
    (seen,) = torch.autograd.grad(whole(mixer, x)[0, 10].sum(), x)
    assert [bool(token.any()) for token in seen[0]] == [True] * 11 + [False]


def test_its_state_does_not_grow_with_the_text_and_is_kept_in_float32() -> None:
    states = [rg_lru().make_state(2, n, torch.bfloat16, torch.device("cpu")).tensors() for n in (1, 1000)]
    for tensors in states:
        assert sum(tensor.numel() for tensor in tensors) == 2 * 8 * (3 + 1)
        assert {tensor.dtype for tensor in tensors} == {torch.float32}


def test_gradients_are_right(whole: Any) -> None:
    mixer = rg_lru(width=4).double()
    names, parameters = zip(*mixer.named_parameters(), strict=True)
    ids = torch.tensor([[0, 0, 0, 1, 1]])

    def run(x: Tensor, *given: Tensor) -> Tensor:
        weights = dict(zip(names, given, strict=True))
        out: Tensor = whole(lambda *told: torch.func.functional_call(mixer, weights, told), x, ids)
        return out

    x = torch.randn(1, 5, DIM, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


def test_initial_weights_keep_nearly_everything_of_an_open_gate_and_train(whole: Any) -> None:
    mixer = rg_lru()
    mixer.init_weights(0.02)
    kept = torch.exp(-8 * torch.nn.functional.softplus(mixer.decay))
    assert kept.ge(0.9 - 1e-4).all()
    assert kept.le(0.999 + 1e-4).all()
    whole(mixer, torch.randn(2, 5, DIM)).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        assert parameter.grad.isfinite().all(), name


def test_heads_that_do_not_divide_the_width_are_refused_with_what_would() -> None:
    assert RGLRUConfig().derive(dim=12) == {"width": 12}
    assert RGLRUConfig(width=9, n_heads=3).derive(dim=12) == {}
    with pytest.raises(ConfigProblem, match=r"width \(12\) must be a multiple of n_heads \(5\)") as problem:
        RGLRUConfig(n_heads=5).derive(dim=12)
    assert problem.value.hint == "use one of 1, 2, 3, 4, 6, 12"
