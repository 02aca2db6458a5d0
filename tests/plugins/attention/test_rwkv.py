"""RWKV-4's time mixing against transformers' own, the formula as it stands, and its own cache."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from lamina.core import Span
from lamina.plugins.attention.rwkv import RWKV, RWKVConfig, wkv

DIM = 6


def rwkv(width: int = 8, layer: int = 1) -> RWKV:
    mixer = RWKV(RWKVConfig(width=width), DIM, layer, 3)
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return mixer


def test_rwkv_equals_transformers(whole: Any, in_calls: Any) -> None:
    modeling = pytest.importorskip("transformers.models.rwkv.modeling_rwkv")
    config = modeling.RwkvConfig(hidden_size=DIM, attention_hidden_size=8, num_hidden_layers=1)
    mixer, theirs = rwkv(), modeling.RwkvSelfAttention(config, 0)
    theirs.load_state_dict(
        {
            "time_mix_receptance": mixer.receptance_mix.view(1, 1, -1),
            "time_mix_key": mixer.key_mix.view(1, 1, -1),
            "time_mix_value": mixer.value_mix.view(1, 1, -1),
            "time_decay": mixer.decay,
            "time_first": mixer.bonus,
            "receptance.weight": mixer.receptance.weight,
            "key.weight": mixer.key.weight,
            "value.weight": mixer.value.weight,
            "output.weight": mixer.out.weight,
        }
    )
    x = torch.randn(2, 9, DIM)
    with torch.no_grad():
        expected, _ = theirs(x)
        assert_close(whole(mixer, x), expected, atol=1e-5, rtol=1e-4)
        assert_close(in_calls(mixer, x, [4, 1, 1, 3]), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 11])
def test_wkv_follows_the_formula_for_any_length(length: int) -> None:
    k, v = torch.randn(2, 2, length, 3, dtype=torch.float64)
    decay, bonus = torch.rand(3).double(), torch.randn(3).double()
    rows = []
    for t in range(length):
        weights = [torch.exp(k[:, i] - (t - 1 - i) * decay) for i in range(t)] + [torch.exp(k[:, t] + bonus)]
        rows.append(sum(w * v[:, i] for i, w in enumerate(weights)) / sum(weights))
    mean, _ = wkv(k, v, decay, bonus, Span.run(0, length, torch.device("cpu")))
    assert_close(mean, torch.stack(rows, 1))


@pytest.mark.parametrize("size", [-500.0, 500.0])
def test_large_keys_neither_overflow_nor_vanish(size: float) -> None:
    k, v = torch.full((1, 9, 2), size) + torch.randn(1, 9, 2), torch.randn(1, 9, 2)
    shifted = wkv(k - size, v, torch.ones(2), torch.zeros(2), Span.run(0, 9, torch.device("cpu")))[0]
    mean = wkv(k, v, torch.ones(2), torch.zeros(2), Span.run(0, 9, torch.device("cpu")))[0]
    assert_close(mean, shifted, atol=1e-3, rtol=1e-3)


@settings(max_examples=40)
@given(split=st.lists(st.integers(1, 4), min_size=1, max_size=5), documents=st.booleans(), data=st.data())
def test_any_split_into_cached_calls_gives_one_full_call(
    whole: Any, in_calls: Any, split: list[int], documents: bool, data: st.DataObject
) -> None:
    mixer, length = rwkv(), sum(split)
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    ids = torch.tensor([data.draw(row), data.draw(row)]) if documents else None
    x = torch.randn(2, length, DIM)
    assert_close(in_calls(mixer, x, split, ids), whole(mixer, x, ids), atol=1e-5, rtol=1e-4)


def test_a_document_is_blind_to_the_others(whole: Any) -> None:
    mixer, x = rwkv(), torch.randn(1, 7, DIM)
    packed = whole(mixer, x, torch.tensor([[0, 0, 0, 1, 1, 1, 1]]))
    assert_close(packed[:, :3], whole(mixer, x[:, :3]))
    assert_close(packed[:, 3:], whole(mixer, x[:, 3:]))


def test_its_state_does_not_grow_with_the_text_and_is_kept_in_float32() -> None:
    states = [rwkv().make_state(2, n, torch.bfloat16, torch.device("cpu")).tensors() for n in (1, 1000)]
    for tensors in states:
        assert sum(tensor.numel() for tensor in tensors) == 2 * (DIM + 3 * 8)
        assert {tensor.dtype for tensor in tensors} == {torch.float32}


def test_gradients_are_right(whole: Any) -> None:
    mixer = rwkv(width=4).double()
    names, parameters = zip(*mixer.named_parameters(), strict=True)
    ids = torch.tensor([[0, 0, 0, 1, 1]])

    def run(x: Tensor, *given: Tensor) -> Tensor:
        weights = dict(zip(names, given, strict=True))
        out: Tensor = whole(lambda *told: torch.func.functional_call(mixer, weights, told), x, ids)
        return out

    x = torch.randn(1, 5, DIM, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("layer", [0, 2])
def test_initial_weights_are_those_of_transformers(layer: int) -> None:
    modeling = pytest.importorskip("transformers.models.rwkv.modeling_rwkv")
    config = modeling.RwkvConfig(hidden_size=DIM, attention_hidden_size=8, num_hidden_layers=3, vocab_size=4)
    theirs, mixer = modeling.RwkvModel(config).blocks[layer].attention, rwkv(layer=layer)
    mixer.init_weights(0.02)
    assert_close(mixer.decay, theirs.time_decay)
    # Not compared with theirs, which sets it to one.
    assert_close(mixer.bonus, torch.tensor([math.log(0.3) + 0.5 * ((i + 1) % 3 - 1) for i in range(8)]))
    for name in ("receptance", "key", "value"):
        assert_close(mixer.get_parameter(f"{name}_mix"), theirs.get_parameter(f"time_mix_{name}").flatten())


def test_initial_weights_train(whole: Any) -> None:
    mixer = rwkv()
    mixer.init_weights(0.02)
    whole(mixer, torch.randn(2, 5, DIM)).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        assert parameter.grad.isfinite().all(), name


def test_it_is_as_wide_as_the_stream_unless_told() -> None:
    assert RWKVConfig().derive(dim=12) == {"width": 12}
    assert RWKVConfig(width=7).derive(dim=12) == {}
