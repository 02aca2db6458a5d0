"""HardSwish against its formula, number by number."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from lamina.plugins.activation.hardswish import HardSwish


def test_hardswish_follows_its_formula() -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [z * min(max(z + 3, 0), 6) / 6 for z in x.tolist()]
    assert_close(HardSwish()(x), torch.tensor(expected, dtype=torch.float64))
