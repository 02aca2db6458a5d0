from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core.native import library, why_not
from lamina.core.quantised import GROUP, QuantisedLinear, quantise

some = settings(max_examples=25, derandomize=True, deadline=None)


@some
@given(out=st.integers(1, 40), groups=st.integers(1, 9), seed=st.integers(0, 99))
def test_eight_bits_are_within_half_a_step(out: int, groups: int, seed: int) -> None:
    w = torch.randn(out, groups * GROUP, generator=torch.Generator().manual_seed(seed))
    found = quantise(w, 8)
    step = w.view(out, groups, GROUP).abs().amax(-1, keepdim=True) / 127
    error = (found.plainly_widened() - w).view(out, groups, GROUP).abs()
    assert bool((error <= 0.5 * step + 127 * step * 2**-10).all())  # float16 rounds the step
    assert found.nbytes * 8 == w.numel() * 8.5


@some
@given(out=st.integers(1, 40), groups=st.integers(1, 9), seed=st.integers(0, 99))
def test_four_bits_are_no_worse_than_plain_rounding_to_the_range(out: int, groups: int, seed: int) -> None:
    w = torch.randn(out, groups * GROUP, generator=torch.Generator().manual_seed(seed)).view(out, groups, GROUP)
    found = quantise(w.view(out, -1), 4)
    low, step = w.amin(-1, keepdim=True), (w.amax(-1, keepdim=True) - w.amin(-1, keepdim=True)) / 15
    plain = ((w - low) / step).round() * step + low
    error = (found.plainly_widened().view_as(w) - w).square().sum(-1)
    assert bool((error <= (plain - w).square().sum(-1) * 1.001).all())
    assert found.nbytes * 8 == w.numel() * 5


def test_groups_without_any_spread_are_kept() -> None:
    w = torch.cat([torch.zeros(2, GROUP), torch.full((2, GROUP), 0.25)], 1)
    for bits in (8, 4):
        assert_close(quantise(w, bits).plainly_widened(), w, atol=1e-3, rtol=0)


@pytest.mark.skipif(library() is None, reason=f"no kernels here: {why_not()}")
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 16, 17])
@pytest.mark.parametrize("shape", [(1, 32), (7, 96), (130, 576), (33, 2080)])
def test_the_kernels_multiply_and_widen_as_torch_does(bits: int, rows: int, shape: tuple[int, int]) -> None:
    w, x = torch.randn(shape), torch.randn(rows, shape[1])
    layer = QuantisedLinear(quantise(w, bits), torch.randn(shape[0]), torch.float32)
    plain = layer.quantised.plainly_widened()
    assert_close(layer.weight, plain, atol=0, rtol=1e-6)
    assert_close(layer.quantised.widen(torch.bfloat16), plain.bfloat16())
    with torch.no_grad():
        want = F.linear(x, plain, layer.bias)
        # Rows are rounded to 16 bits: an error of 2^-16 of their largest number in each product.
        allowed = float(x.abs().max()) * 2**-15 * shape[1] ** 0.5 * float(plain.abs().max()) * 3
        assert_close(layer(x), want, atol=allowed, rtol=1e-4)
