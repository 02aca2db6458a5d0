"""torch.compile without code generation: whether a part can be traced as one graph, and gives the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lamina.core.conformance.case import Case, randn, tokens
from lamina.core.conformance.checks import Wrong, check
from lamina.core.conformance.texts import run, same
from lamina.core.context import Context, Span
from lamina.core.router import Router


@check("attention", "position", "rope_scaling", name="compiles", once=True)
@torch.no_grad()
def layers_compile_without_graph_breaks(case: Case) -> None:
    """Each layer compiles as one graph, unless `one_graph` says otherwise, with a cache too; the logits are eager's."""
    _layers(case, fullgraph=getattr(case.entry.component, "one_graph", True))


@check("ffn", name="compiles", once=True)
@torch.no_grad()
def layers_compile_or_fall_back(case: Case) -> None:
    """Each layer compiles and gives the eager logits; a mixture of experts may break the graph."""
    _layers(case, fullgraph=False)


@check("norm", "activation", name="compiles", once=True)
@torch.no_grad()
def it_compiles(case: Case) -> None:
    """It compiles as one graph and gives the same."""
    _function(case.build(), randn(2, 3, case.dim))


@check("residual", name="compiles", once=True)
@torch.no_grad()
def the_join_compiles(case: Case) -> None:
    """It compiles as one graph, sublayer included, and gives the same."""
    residual = case.build()
    _function(lambda x: residual(x, torch.tanh), residual.widen(randn(2, 3, case.dim)))


@check("router", name="compiles", once=True)
@torch.no_grad()
def the_choice_compiles(case: Case) -> None:
    """It compiles as one graph and gives the same weights."""
    router: Router = case.build(dtype=torch.float32)
    context = Context(tokens(1, 6), Span.run(0, 6, torch.device("cpu")))
    _function(lambda x: router(x, context).weights, randn(6, case.dim, dtype=torch.float32))


def _function(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    want = function(x)
    with _tracing():
        compiled: Any = torch.compile(function, backend="eager", fullgraph=True, dynamic=False)
        same(compiled(x), want, "compiled the same as eager")


def _layers(case: Case, fullgraph: bool) -> None:
    decoder = case.decoder()
    split = (4, 1)
    ids = tokens(2, sum(split))
    want = decoder(ids)
    with _tracing():
        decoder.layers[0].compile(backend="eager", fullgraph=fullgraph, dynamic=False)
        same(decoder(ids), want, "compiled layers to give the eager logits", length=sum(split))
        if case.entry.kind != "ffn":
            same(run(decoder, ids, split), want, "compiled layers to give the eager logits", calls_of=split)


@contextmanager
def _tracing() -> Iterator[None]:
    import torch._dynamo  # takes seconds to load, and most kinds need none of it
    from torch._dynamo.exc import TorchDynamoException

    torch._dynamo.reset()
    try:
        yield
    except TorchDynamoException as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise Wrong("to compile as one graph", " · ".join(said[:4])) from error
    finally:
        torch._dynamo.reset()
