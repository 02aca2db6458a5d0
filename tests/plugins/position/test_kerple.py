"""KERPLE against its two formulas."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch.testing import assert_close

from lamina.core import Span
from lamina.plugins.position.kerple import KERPLE, LEAST, KERPLEConfig

Variant = Literal["log", "power"]


@pytest.mark.parametrize("variant", ["log", "power"])
def test_the_penalty_follows_its_formula(variant: Variant) -> None:
    position = KERPLE(KERPLEConfig(variant=variant), n_heads=3)
    queries, keys = Span(torch.tensor([[9, 2], [0, 5]])), Span(torch.tensor([[1, 9, 2], [0, 3, 5]]))
    bias = position.bias(torch.zeros(1), queries, keys)
    assert bias.shape == (2, 3, 2, 3)
    for b, h, t, s in [(b, h, t, s) for b in range(2) for h in range(3) for t in range(2) for s in range(3)]:
        distance, a = abs(int(queries.positions[b, t] - keys.positions[b, s])), position.a[h].item()
        if variant == "log":
            expected = -a * math.log(1 + position.bend[h].item() * distance)
        else:
            expected = -a * distance ** position.bend[h].item()
        assert bias[b, h, t, s].item() == pytest.approx(expected, abs=1e-5, rel=1e-5)


@pytest.mark.parametrize("variant", ["log", "power"])
def test_gradients_are_right_at_distance_zero_too(variant: Variant) -> None:
    position = KERPLE(KERPLEConfig(variant=variant), n_heads=2).double()

    def penalties(*_: Any) -> torch.Tensor:
        return position.bias(torch.zeros(1), Span.run(0, 4, torch.device("cpu")), Span.run(0, 4, torch.device("cpu")))

    assert torch.autograd.gradcheck(penalties, tuple(position.parameters()))


@pytest.mark.parametrize("variant", ["log", "power"])
def test_parameters_stay_where_the_kernel_is_one(variant: Variant) -> None:
    position = KERPLE(KERPLEConfig(variant=variant), n_heads=2)
    for value, expected in [(-1.0, LEAST), (5.0, 2.0 if variant == "power" else 5.0)]:
        with torch.no_grad():
            for parameter in position.parameters():
                parameter.fill_(value)
        span = Span.run(0, 4, torch.device("cpu"))
        outside = position.bias(torch.zeros(1), span, span)
        position.after_step()
        assert_close(position.bias(torch.zeros(1), Span.run(0, 4, torch.device("cpu")), span), outside)
        assert position.bend.tolist() == pytest.approx([expected] * 2)
        assert position.a.tolist() == pytest.approx([max(value, LEAST)] * 2)


@pytest.mark.parametrize("variant", ["log", "power"])
def test_kerple_keeps_the_invariants(check_scheme: Any, variant: Variant) -> None:
    check_scheme({"name": "kerple", "variant": variant})


def test_each_layer_has_parameters_of_its_own_unless_told_otherwise(decoder_with: Any) -> None:
    for shared in (False, True):
        decoder = decoder_with({"name": "kerple", "shared": shared})
        first, second = (layer.attention.position for layer in decoder.layers)
        assert (first is second) == shared
