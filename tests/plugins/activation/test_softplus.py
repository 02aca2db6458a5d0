"""Softplus against its formula, number by number."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from lamina.plugins.activation.softplus import Softplus, SoftplusConfig


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_softplus_follows_its_formula(beta: float) -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [math.log1p(math.exp(beta * z)) / beta for z in x.tolist()]
    assert_close(Softplus(SoftplusConfig(beta=beta))(x), torch.tensor(expected, dtype=torch.float64))
