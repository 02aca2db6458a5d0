"""Residuals: one call of the sublayer, and a stream that keeps its shape."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.core.conformance.case import Case, randn
from lamina.core.conformance.checks import Wrong, check
from lamina.core.conformance.texts import same


@check("residual", name="one sublayer call")
@torch.no_grad()
def one_call_of_the_sublayer(case: Case) -> None:
    """In evaluation the sublayer is called once, on (B, T, D), and the stream keeps its shape."""
    residual, seen = case.build(), []

    def sublayer(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return x.tanh()

    for batch, length in ((1, 1), (2, 3)):
        seen.clear()
        x = randn(batch, length, case.dim)
        stream = residual.widen(x)
        out = residual(stream, sublayer)
        if len(seen) != 1:
            raise Wrong("one call of the sublayer", f"{len(seen)} calls", batch=batch, length=length)
        if seen[0] != tuple(x.shape):
            raise Wrong(f"the sublayer to be given {tuple(x.shape)}", f"{seen[0]}")
        if out.shape != stream.shape:
            raise Wrong(f"a stream of the shape {tuple(stream.shape)} again", f"{tuple(out.shape)}")


@check("residual", name="widen and narrow")
@torch.no_grad()
def narrow_undoes_widen(case: Case) -> None:
    """`narrow` brings the stream that `widen` made back to (B, T, D), each token by itself."""
    residual = case.build()
    for batch, length in ((1, 1), (2, 3)):
        x = randn(batch, length, case.dim)
        stream = residual.widen(x)
        back = residual.narrow(stream)
        if back.shape != x.shape:
            raise Wrong(f"the shape {tuple(x.shape)} from narrow", f"{tuple(back.shape)}")
        alone = torch.cat([residual.narrow(residual.widen(piece)) for piece in torch.split(x, 1, 1)], 1)
        same(back, alone, "tokens of a stream to stay apart", length=length)


@check("residual", name="sublayer counts")
@torch.no_grad()
def what_the_sublayer_finds_counts(case: Case) -> None:
    """The output follows from what the sublayer returns."""
    residual = case.build()
    stream = residual.widen(randn(2, 3, case.dim))
    one, other = residual(stream, lambda x: x), residual(stream, lambda x: x + 1)
    if torch.equal(one, other):
        raise Wrong("another result for another sublayer", "the same")
