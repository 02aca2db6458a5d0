"""Mish against its formula, number by number."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from lamina.plugins.activation.mish import Mish


def test_mish_follows_its_formula() -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [z * math.tanh(math.log1p(math.exp(z))) for z in x.tolist()]
    assert_close(Mish()(x), torch.tensor(expected, dtype=torch.float64))
