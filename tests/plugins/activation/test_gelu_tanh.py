"""GELUTanh against its formula, number by number."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from lamina.plugins.activation.gelu_tanh import GELUTanh


def test_gelu_tanh_follows_its_formula() -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [z / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) for z in x.tolist()]
    assert_close(GELUTanh()(x), torch.tensor(expected, dtype=torch.float64))
