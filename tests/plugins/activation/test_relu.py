"""ReLU against its formula, number by number."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from lamina.plugins.activation.relu import ReLU


def test_relu_follows_its_formula() -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [max(z, 0.0) for z in x.tolist()]
    assert_close(ReLU()(x), torch.tensor(expected, dtype=torch.float64))
