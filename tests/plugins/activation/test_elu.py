"""ELU against its formula, number by number."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from lamina.plugins.activation.elu import ELU, ELUConfig


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_elu_follows_its_formula(alpha: float) -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [z if z > 0 else alpha * math.expm1(z) for z in x.tolist()]
    assert_close(ELU(ELUConfig(alpha=alpha))(x), torch.tensor(expected, dtype=torch.float64))
