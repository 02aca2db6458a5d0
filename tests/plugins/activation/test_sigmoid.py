"""Sigmoid against its formula, number by number."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from lamina.plugins.activation.sigmoid import Sigmoid


def test_sigmoid_follows_its_formula() -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [1 / (1 + math.exp(-z)) for z in x.tolist()]
    assert_close(Sigmoid()(x), torch.tensor(expected, dtype=torch.float64))
