"""SiLU against its formula, number by number."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from lamina.plugins.activation.silu import SiLU


def test_silu_follows_its_formula() -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [z / (1 + math.exp(-z)) for z in x.tolist()]
    assert_close(SiLU()(x), torch.tensor(expected, dtype=torch.float64))
