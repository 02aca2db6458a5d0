"""Tanh against its formula, number by number."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from lamina.plugins.activation.tanh import Tanh


def test_tanh_follows_its_formula() -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [(math.exp(z) - math.exp(-z)) / (math.exp(z) + math.exp(-z)) for z in x.tolist()]
    assert_close(Tanh()(x), torch.tensor(expected, dtype=torch.float64))
