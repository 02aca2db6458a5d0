"""The gated short convolution against transformers' LFM2, token by token, and its own cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from lamina.plugins.attention.short_conv import ShortConv, ShortConvConfig

DIM = 6


def short_conv(width: int = 3, bias: bool = False) -> ShortConv:
    mixer = ShortConv(ShortConvConfig(width=width, bias=bias), DIM)
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mixer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("width", [1, 3, 4])
def test_short_conv_equals_lfm2(whole: Any, width: int, bias: bool) -> None:
    modeling = pytest.importorskip("transformers.models.lfm2.modeling_lfm2")
    config = modeling.Lfm2Config(
        hidden_size=DIM,
        conv_L_cache=width,
        conv_bias=bias,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        layer_types=["conv"],
    )
    mixer, theirs = short_conv(width, bias), modeling.Lfm2ShortConv(config, 0)
    state = {
        "conv.weight": mixer.conv_weight,
        "in_proj.weight": mixer.gates_in.weight,
        "out_proj.weight": mixer.out.weight,
    }
    if bias:
        state |= {"conv.bias": mixer.conv_bias, "in_proj.bias": mixer.gates_in.bias, "out_proj.bias": mixer.out.bias}
    theirs.load_state_dict(state)
    x = torch.randn(2, 7, DIM)
    assert_close(whole(mixer, x), theirs(x))


@settings(max_examples=40)
@given(
    split=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    width=st.integers(1, 5),
    documents=st.booleans(),
    data=st.data(),
)
def test_any_split_into_cached_calls_gives_one_full_call(
    whole: Any, in_calls: Any, split: list[int], width: int, documents: bool, data: st.DataObject
) -> None:
    mixer, length = short_conv(width, bias=True), sum(split)
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    ids = torch.tensor([data.draw(row), data.draw(row)]) if documents else None
    x = torch.randn(2, length, DIM)
    assert_close(in_calls(mixer, x, split, ids), whole(mixer, x, ids))


def test_a_document_is_blind_to_the_others(whole: Any) -> None:
    mixer, x = short_conv(4), torch.randn(1, 7, DIM)
    packed = whole(mixer, x, torch.tensor([[0, 0, 0, 1, 1, 1, 1]]))
    assert_close(packed[:, :3], whole(mixer, x[:, :3]))
    assert_close(packed[:, 3:], whole(mixer, x[:, 3:]))


def test_a_token_reads_as_far_as_the_width_and_no_further(whole: Any) -> None:
    mixer, x = short_conv(3), torch.randn(1, 6, DIM, requires_grad=True)
    (seen,) = torch.autograd.grad(whole(mixer, x)[0, 4].sum(), x)
    assert [bool(token.any()) for token in seen[0]] == [False, False, True, True, True, False]


def test_its_state_does_not_grow_with_the_text() -> None:
    mixer = short_conv(3)
    sizes = [
        sum(tensor.numel() for tensor in mixer.make_state(2, n, torch.float32, torch.device("cpu")).tensors())
        for n in (1, 1000)
    ]
    assert sizes == [2 * 2 * DIM] * 2


def test_gradients_are_right(whole: Any) -> None:
    mixer = short_conv(bias=True).double()
    names, parameters = zip(*mixer.named_parameters(), strict=True)
    ids = torch.tensor([[0, 0, 1, 1]])

    def run(x: Tensor, *given: Tensor) -> Tensor:
        weights = dict(zip(names, given, strict=True))
        out: Tensor = whole(lambda *told: torch.func.functional_call(mixer, weights, told), x, ids)
        return out

    x = torch.randn(1, 4, DIM, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


def test_initial_weights_leave_every_parameter_a_gradient(whole: Any) -> None:
    mixer = short_conv(bias=True)
    mixer.init_weights(0.02)
    whole(mixer, torch.randn(2, 5, DIM)).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
