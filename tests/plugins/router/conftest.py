"""A context, and a way to compare with transformers' routers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lamina.core import Context, Router, Routing, Span


def make_context(token_ids: Tensor | None = None) -> Context:
    ids = torch.zeros(1, 1, dtype=torch.int64) if token_ids is None else token_ids
    return Context(ids, Span.run(0, ids.shape[1], torch.device("cpu")))


@pytest.fixture
def context() -> Context:
    return make_context()


@pytest.fixture
def context_of() -> Callable[[Tensor], Context]:
    return make_context


def drawn(router: Router) -> Router:
    for parameter in router.parameters():
        nn.init.normal_(parameter)
    return router


@pytest.fixture
def draw() -> Callable[[Router], Router]:
    """Gives a router weights from a normal distribution."""
    return drawn


@pytest.fixture
def dense() -> Callable[[Tensor, Tensor, int], Tensor]:
    """(N, k) weights and indices -> (N, E), because the order of the chosen is nobody's business."""
    return lambda weights, indices, n: torch.zeros(len(weights), n, dtype=weights.dtype).scatter(1, indices, weights)


@pytest.fixture
def reference() -> Callable[..., Any]:
    """A router of transformers: `reference("gpt_oss", "GptOssTopKRouter", "GptOssConfig", hidden_size=4)`."""

    def make(model: str, name: str, config: str, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = import_module(f"transformers.models.{model}.modeling_{model}")
            made = getattr(module, name)(getattr(import_module("transformers"), config)(**options))
        for tensor in (*made.parameters(), *made.buffers()):
            if tensor.is_floating_point():
                nn.init.normal_(tensor, std=0.5)
        return made.eval()

    return make


def check_float64(router: Router, x: Tensor, context: Context) -> None:
    """The weights' gradients by the input and by every parameter are right."""
    router.double()
    inputs = [x.double().requires_grad_(), *router.parameters()]

    def weights(*_: Tensor) -> Tensor:
        routing: Routing = router(inputs[0], context)
        return torch.zeros_like(routing.logits).scatter(1, routing.indices, routing.weights)

    assert weights().dtype == torch.float64
    assert torch.autograd.gradcheck(weights, inputs)


@pytest.fixture
def float64(context: Context) -> Callable[[Router, Tensor], None]:
    return lambda router, x: check_float64(router, x, context)
