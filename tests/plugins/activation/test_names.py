"""Activations under the names that transformers gives them, parity for each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lamina.core.build import build_part
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_part

REGISTRY = load_plugins(only=[])
OURS: dict[str, Any] = {
    "gelu": "gelu",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "hardswish": "hardswish",
    "leaky_relu": "leaky_relu",
    "linear": "identity",
    "mish": "mish",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": {"name": "swish", "learned": False},
    "tanh": "tanh",
}


@pytest.mark.parametrize("name", OURS)
def test_what_transformers_calls_so_is_this(name: str) -> None:
    theirs = pytest.importorskip("transformers.activations").ACT2FN[name]
    x = torch.linspace(-5, 5, 101)
    assert_close(build_part(resolve_part("activation", OURS[name], REGISTRY))(x), theirs(x), atol=1e-6, rtol=1e-5)
