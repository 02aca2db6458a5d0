"""Sinusoidal positions against the closed form of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from lamina.core import ConfigProblem, Context
from lamina.plugins.position.sinusoidal import Sinusoidal, SinusoidalConfig


@pytest.mark.parametrize("theta", [10_000.0, 100.0])
def test_sinusoidal_follows_its_closed_form(context_at: Callable[..., Context], theta: float) -> None:
    places, dim = [[0, 1, 2, 50], [7, 8, 0, 1]], 6
    x = torch.randn(2, 4, dim)
    waves = torch.tensor(
        [
            [[(math.cos if i % 2 else math.sin)(t / theta ** ((i - i % 2) / dim)) for i in range(dim)] for t in row]
            for row in places
        ]
    )
    position = Sinusoidal(SinusoidalConfig(theta=theta), dim)
    assert_close(position.embed(x, context_at(places)), x + waves)
    assert not list(position.parameters())
    assert not position.state_dict()


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="dim must be even"):
        SinusoidalConfig().derive(dim=5)
