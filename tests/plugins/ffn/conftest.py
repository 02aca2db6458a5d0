"""An activation and a context, so that these tests need no other plugin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lamina.core import Activation, Context, Span


class SiLU(Activation):
    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


@pytest.fixture
def silu() -> Activation:
    return SiLU()


@pytest.fixture
def context() -> Context:
    return Context(torch.zeros(1, 1, dtype=torch.int64), Span.run(0, 1, torch.device("cpu")))
