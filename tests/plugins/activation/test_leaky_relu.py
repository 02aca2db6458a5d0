"""LeakyReLU against its formula, number by number."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lamina.plugins.activation.leaky_relu import LeakyReLU, LeakyReLUConfig


@pytest.mark.parametrize("slope", [0.01, 0.3])
def test_leaky_relu_follows_its_formula(slope: float) -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [z if z > 0 else slope * z for z in x.tolist()]
    assert_close(LeakyReLU(LeakyReLUConfig(slope=slope))(x), torch.tensor(expected, dtype=torch.float64))
