from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from lamina.core import History
from lamina.plugins.sampler.temperature import Temperature, TemperatureConfig

NOTHING = History(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


@pytest.mark.parametrize("value", [0.25, 1.0, 3.0])
def test_raises_probabilities_to_one_over_t(value: float) -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    powered = logits.double().softmax(-1) ** (1 / value)
    ours = Temperature(TemperatureConfig(value=value)).forward(logits, NOTHING).softmax(-1)
    torch.testing.assert_close(ours.double(), powered / powered.sum(-1, keepdim=True), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("value", [1e-6, 1e6])
def test_removed_tokens_stay_removed_at_either_bound(value: float) -> None:
    out = Temperature(TemperatureConfig(value=value)).forward(torch.tensor([[5.0, 4.0, -torch.inf]]), NOTHING)
    assert out.softmax(-1).isfinite().all()
    assert out[0, 2] == -torch.inf


def test_zero_is_refused_and_greedy_named() -> None:
    with pytest.raises(ValidationError, match=r"above 0; .* use the sampler 'greedy'"):
        TemperatureConfig(value=0.0)


def test_negative_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than"):
        TemperatureConfig(value=-1.0)
