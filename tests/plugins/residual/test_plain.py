"""The plain residual."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from lamina.plugins.residual.plain import Plain, PlainConfig


def test_the_sublayer_reads_the_stream_and_adds_to_it() -> None:
    x = torch.randn(2, 3, 4)
    assert_close(Plain(PlainConfig())(x, lambda h: 2 * h), 3 * x)


def test_dropout_acts_while_training_only() -> None:
    residual, x = Plain(PlainConfig(dropout=0.5)), torch.zeros(100, 100)
    dropped = residual.train()(x, torch.ones_like)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert abs(dropped.mean().item() - 1) < 0.1
    assert residual.eval()(x, torch.ones_like).equal(torch.ones_like(x))
