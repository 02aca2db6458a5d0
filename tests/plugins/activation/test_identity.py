"""Identity, alone and as the gate of a bilinear layer."""

from __future__ import annotations

import torch

from lamina.plugins.activation.identity import Identity


def test_identity_changes_nothing() -> None:
    x = torch.randn(3, 4)
    assert Identity()(x).equal(x)
