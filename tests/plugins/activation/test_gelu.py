"""GELU against its formula, number by number."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from lamina.plugins.activation.gelu import GELU


def test_gelu_follows_its_formula() -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [z * 0.5 * (1 + math.erf(z / math.sqrt(2))) for z in x.tolist()]
    assert_close(GELU()(x), torch.tensor(expected, dtype=torch.float64))
