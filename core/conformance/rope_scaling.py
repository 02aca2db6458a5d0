"""Scalings of rotary positions: turns of the promised shape, that depend on a token's place in its text alone."""

from __future__ import annotations

import torch

from lamina.core.conformance.case import Case
from lamina.core.conformance.checks import Wrong, check
from lamina.core.context import Span, place_documents


@check("rope_scaling", name="turns")
def turns_have_the_promised_shape(case: Case) -> None:
    """(width/2,) or (1 or B, 1 or T, width/2) finite radians, and a finite factor, for short texts and long ones."""
    scaling, half = case.build(), case.sizes["width"] // 2
    cpu = torch.device("cpu")
    ids = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 2, 2]])
    spans = [Span.run(0, 1, cpu), Span.run(0, 5, cpu), Span.run(0, 4096, cpu), place_documents(ids)]
    for span in spans:
        turns, factor = scaling.turns(span)
        batch, length = span.positions.shape
        shapes = {(half,), *((b, t, half) for b in (1, batch) for t in (1, length))}
        if tuple(turns.shape) not in shapes:
            raise Wrong(f"turns of one of the shapes {sorted(shapes, key=len)}", f"{tuple(turns.shape)}", length=length)
        if not turns.isfinite().all() or not torch.as_tensor(factor).isfinite().all():
            raise Wrong("finite turns and factor", f"{turns.flatten()[:4].tolist()}, {factor}", length=length)
