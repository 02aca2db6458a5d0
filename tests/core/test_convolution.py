"""The short convolution against torch's, whole, in calls and over documents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import Cache, LayerState, Span, causal_conv
from lamina.core.context import place_documents

CPU = torch.device("cpu")


def by_torch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    padded = F.pad(x.transpose(1, 2), (weight.shape[1] - 1, 0))
    return F.conv1d(padded, weight.unsqueeze(1), bias, groups=weight.shape[0]).transpose(1, 2)


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_convolution_is_torchs_with_padding_on_the_left(width: int, with_bias: bool, length: int) -> None:
    x, weight = torch.randn(2, length, 5), torch.randn(5, width)
    bias = torch.randn(5) if with_bias else None
    y, tail = causal_conv(x, weight, bias, Span.run(0, length, CPU))
    assert_close(y, by_torch(x, weight, bias))
    assert_close(tail, F.pad(x, (0, 0, width, 0))[:, length + 1 :])


@given(split=st.lists(st.integers(1, 4), min_size=1, max_size=5), documents=st.booleans(), data=st.data())
def test_calls_with_a_tail_and_documents_give_each_documents_own_convolution(
    split: list[int], documents: bool, data: st.DataObject
) -> None:
    length = sum(split)
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    ids = torch.tensor([data.draw(row), data.draw(row)]) if documents else torch.zeros(2, length, dtype=torch.int64)
    x, weight, bias = torch.randn(2, length, 3), torch.randn(3, 4), torch.randn(3)
    cache = Cache([LayerState(2, length, x.dtype, CPU, registers={"tail": (3, 3)})], 2, length, CPU)
    state, found = cache.layers[0], []
    assert state is not None
    for new in split:
        here = slice(cache.used, cache.used + new)
        queries = cache.place(2, new, ids[:, here] if documents else None)
        y, tail = causal_conv(x[:, here], weight, bias, queries, state.read("tail"))
        state.write("tail", tail)
        cache.advance(new)
        found.append(y)
    whole = place_documents(ids).documents
    assert whole is not None
    for index in range(2):
        alone = [by_torch(x[index, whole[index] == d].unsqueeze(0), weight, bias) for d in whole[index].unique()]
        assert_close(torch.cat(found, 1)[index], torch.cat(alone, 1)[0])


def test_half_precision_is_summed_in_float32() -> None:
    x, weight = torch.randn(1, 50, 4).bfloat16(), torch.randn(4, 4).bfloat16()
    y, _ = causal_conv(x, weight, None, Span.run(0, 50, CPU))
    assert_close(y, by_torch(x.float(), weight.float(), None).bfloat16(), atol=0, rtol=0)


def test_gradients_are_right() -> None:
    x = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    tail = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    queries = place_documents(torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 2]]))
    assert torch.autograd.gradcheck(
        lambda *args: causal_conv(args[0], args[1], None, queries, args[2]), (x, weight, tail)
    )
