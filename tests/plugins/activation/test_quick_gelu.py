"""QuickGELU against its formula, number by number."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from lamina.plugins.activation.quick_gelu import QuickGELU


def test_quick_gelu_follows_its_formula() -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [z / (1 + math.exp(-1.702 * z)) for z in x.tolist()]
    assert_close(QuickGELU()(x), torch.tensor(expected, dtype=torch.float64))
