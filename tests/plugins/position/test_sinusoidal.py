"""Sinusoidal positions against the closed form of the paper, and the two other forms of transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lamina.core import ConfigProblem, Context
from lamina.plugins.position.sinusoidal import Sinusoidal, SinusoidalConfig


@pytest.mark.parametrize("theta", [10_000.0, 100.0])
@pytest.mark.parametrize("offset", [0, 3])
def test_sinusoidal_follows_its_closed_form(context_at: Callable[..., Context], theta: float, offset: int) -> None:
    places, dim = [[0, 1, 2, 50], [7, 8, 0, 1]], 6
    x = torch.randn(2, 4, dim)
    waves = torch.tensor(
        [
            [
                [(math.cos if i % 2 else math.sin)((t + offset) / theta ** ((i - i % 2) / dim)) for i in range(dim)]
                for t in row
            ]
            for row in places
        ]
    )
    position = Sinusoidal(SinusoidalConfig(theta=theta, offset=offset), dim)
    assert_close(position.embed(x, context_at(places)), x + waves)
    assert not list(position.parameters())
    assert not position.state_dict()


def test_sines_first_equals_ctrl(context_at: Callable[..., Context]) -> None:
    ctrl: Any = pytest.importorskip("transformers.models.ctrl.modeling_ctrl")
    table = ctrl.positional_encoding(40, 8, torch.float32)
    position = Sinusoidal(SinusoidalConfig(layout="half"), 8)
    assert_close(position.embed(torch.zeros(1, 3, 8), context_at([[0, 7, 39]])), table[None, [0, 7, 39]])


def test_wavelengths_up_to_theta_equal_xglm(context_at: Callable[..., Context]) -> None:
    xglm: Any = pytest.importorskip("transformers.models.xglm.modeling_xglm")
    theirs = xglm.XGLMSinusoidalPositionalEmbedding(64, 8, padding_idx=1)
    position = Sinusoidal(SinusoidalConfig(layout="half", inclusive=True, offset=2), 8)
    places = torch.tensor([[0, 7, 39], [1, 2, 3]])
    assert_close(position.embed(torch.zeros(2, 3, 8), context_at(places.tolist())), theirs(places))


@pytest.mark.parametrize(
    ("dim", "inclusive", "message"), [(5, False, "dim must be even"), (2, True, "one wavelength cannot be first")]
)
def test_widths_without_room_for_the_waves_are_refused(dim: int, inclusive: bool, message: str) -> None:
    with pytest.raises(ConfigProblem, match=message):
        SinusoidalConfig(inclusive=inclusive).derive(dim=dim)


def test_sinusoidal_keeps_the_invariants(check_scheme: Any) -> None:
    check_scheme("sinusoidal")
