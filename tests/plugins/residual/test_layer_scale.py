"""LayerScale."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.plugins.residual.layer_scale import LayerScale, LayerScaleConfig


@pytest.mark.parametrize("start", [1e-5, 0.1])
def test_every_channel_of_the_output_starts_at_the_same_small_weight(start: float) -> None:
    x = torch.randn(2, 3, 4)
    assert_close(LayerScale(LayerScaleConfig(start=start), 4)(x, lambda h: 2 * h), x + 2 * start * x)


@pytest.mark.parametrize("learn_stream", [False, True])
def test_each_channel_has_a_weight_of_its_own(learn_stream: bool) -> None:
    residual, x = LayerScale(LayerScaleConfig(learn_stream=learn_stream), 4), torch.randn(2, 3, 4)
    for parameter in residual.parameters():
        nn.init.normal_(parameter)
    weighted = torch.ones(4) if residual.stream_gamma is None else residual.stream_gamma
    expected = [x[..., d] * weighted[d] + residual.gamma[d] * x[..., d] ** 2 for d in range(4)]
    assert_close(residual(x, lambda h: h**2), torch.stack(expected, -1))
    assert len(list(residual.parameters())) == 1 + learn_stream


def test_half_precision_stays_half() -> None:
    residual = LayerScale(LayerScaleConfig(learn_stream=True), 4)
    assert residual(torch.randn(2, 4, dtype=torch.bfloat16), lambda h: h).dtype == torch.bfloat16
